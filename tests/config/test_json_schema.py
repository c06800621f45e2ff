"""The JSON Schema of the configuration: up to date, complete, and as strict about options as the reader."""

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from msgspec import inspect

from perceiverd import config
from perceiverd.config import json_schema
from perceiverd.core.errors import ConfigError
from tests.support.configs import CONFIGS, EXAMPLE, uncommented, write_config

FILE = CONFIGS / "perceiverd.schema.json"
SOURCES = 'sources = [{ kind = "camera" }]\n'


def errors(text: str) -> list[str]:
    """The paths and messages of the schema's errors in this TOML."""
    validator = jsonschema.Draft7Validator(json.loads(FILE.read_text(encoding="utf-8")))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(tomllib.loads(text))]


def test_the_shipped_file_is_up_to_date() -> None:
    """configs/perceiverd.schema.json is what the code makes; otherwise run `make docs`."""
    assert FILE.read_text(encoding="utf-8") == json_schema.schema_text(), "run `make docs`"


def test_the_schema_is_valid() -> None:
    """It is a JSON Schema of draft 7, which editors for TOML support."""
    jsonschema.Draft7Validator.check_schema(json_schema.schema())


def test_the_example_names_its_schema() -> None:
    """The first line of the annotated example is the directive by which editors find the schema beside it."""
    assert EXAMPLE.read_text().splitlines()[0] == f"#:schema ./{FILE.name}"


@pytest.mark.parametrize("text", [EXAMPLE.read_text(), uncommented(), (CONFIGS / "demo.toml").read_text(), ""])
def test_valid_configurations_have_no_errors(text: str) -> None:
    """The annotated example, with all its options switched on too, the demo and an empty file are valid."""
    assert errors(text) == []


def test_a_shown_configuration_has_no_errors(tmp_path: Path) -> None:
    """What `config show --effective` prints is valid."""
    assert not list(
        jsonschema.Draft7Validator(json_schema.schema()).iter_errors(
            config.table(config.load(write_config(tmp_path, uncommented())), defaults=True)
        )
    )


@pytest.mark.parametrize(
    "text",
    [
        "[windw]\n",
        "[window]\nhops = 1",
        f"[streams.door]\n{SOURCES}sorces = 3",
        '[streams.door]\nsources = [{ kind = "camera", devise = 0 }]',
        '[streams.door]\nsources = [{ kind = "camra" }]',
        f"[streams.door]\n{SOURCES}[streams.door.events]\nonn = 0.5",
        "[events.labels.Dog]\nupdate_s = 3",
        "[window]\nhop_s = 0",
        '[window]\nhop_s = "1"',
        "[events]\non = 1",
        "[streams.door]\nsources = []",
        "[streams.door]\nenabled = true",
        f'[streams."a/b"]\n{SOURCES}',
        '[streams.door]\nsources = [{ kind = "url", url = "rtsp://h", transport = "tpc" }]',
    ],
)
def test_what_the_reader_refuses_is_an_error(tmp_path: Path, text: str) -> None:
    """Unknown options and kinds, missing options, wrong types and values out of bounds are errors in an editor too."""
    with pytest.raises(ConfigError):
        config.load(write_config(tmp_path, text))
    assert errors(text)


def test_every_option_is_described() -> None:
    """Each option has a description, and one with a default in the code has the same in the schema."""
    parts: dict[str, Any] = json_schema.schema()["definitions"]
    for kind in json_schema.structs(inspect.type_info(config.StreamConfig)):
        for field in kind.fields:
            option = parts[kind.cls.__name__]["properties"][field.encode_name]
            assert option["description"], f"{kind.cls.__name__}.{field.name} has no docstring"
    window = parts["WindowConfig"]
    assert window["additionalProperties"] is False
    assert window["properties"]["hop_s"] == {
        "description": json_schema.descriptions(config.WindowConfig)["hop_s"],
        "type": "number",
        "minimum": 0.001,
        "maximum": 3600,
        "default": 0.5,
    }


def test_no_option_is_null() -> None:
    """TOML has no null, so no option may be null in the schema."""
    assert "null" not in json_schema.schema_text()
