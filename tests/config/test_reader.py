"""Reading a configuration, looking up its secrets, and writing it as a table again."""

import tomllib
from pathlib import Path

import pytest
import tomli_w

from perceiverd import config
from perceiverd.core.errors import ConfigError
from perceiverd.pipeline.rules import EventOptions, LabelOptions, StreamOptions
from perceiverd.sources.specs import File, Pipe, Synthetic, Url
from tests.support.configs import refusal, uncommented, write_config

CLIP = '[streams.door]\nsources = [{kind = "file", path = "a.mp4"}]\n'


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    """An empty file is valid: every option has a default."""
    assert config.load(write_config(tmp_path, "")) == config.Config()


def test_streams_and_sources_are_read(tmp_path: Path) -> None:
    """A stream has its sources in order, typed by kind; relative paths start at the file's folder."""
    text = """
    model.name = "models/mine"
    publish.endpoint = "ipc://labels"
    [streams.door]
    enabled = false
    sources = [{kind = "file", path = "a.mp4", loop = true}, {kind = "synthetic", video = false}]
    [streams.gate]
    sources = [{kind = "url", url = "rtsp://camera/1"}, {kind = "file", path = "/srv/b.mkv"}]
    """
    read = config.load(write_config(tmp_path, text))
    assert read.streams["door"] == config.StreamConfig(
        sources=(File(str(tmp_path / "a.mp4"), loop=True), Synthetic(video=False)), enabled=False
    )
    assert read.streams["gate"].sources == (Url("rtsp://camera/1"), File("/srv/b.mkv"))
    assert read.model.name == str(tmp_path / "models/mine")
    assert read.publish.endpoint == f"ipc://{tmp_path}/labels"


def test_options_of_events_are_read(tmp_path: Path) -> None:
    """Options are read for all labels, one label, one stream, and one label of a stream; names can have commas."""
    text = (
        CLIP
        + """
    [streams.door.events]
    deny = ["Squeak"]
    labels."Child speech, kid speaking" = { on = 0.9 }
    [events]
    on = 0.6
    labels = { Dog = { cooldown_s = 60 } }
    """
    )
    read = config.load(write_config(tmp_path, text))
    assert read.events == EventOptions(on=0.6, labels={"Dog": LabelOptions(cooldown_s=60)})
    assert read.streams["door"].events == StreamOptions(
        deny=("Squeak",), labels={"Child speech, kid speaking": LabelOptions(on=0.9)}
    )


def test_a_name_of_a_model_is_not_a_path(tmp_path: Path) -> None:
    """A model's name without a slash stays as it is."""
    assert config.load(write_config(tmp_path, 'model.name = "mine"')).model.name == "mine"


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    """The error names the file and the reason."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot read the configuration: No such file"):
        config.load(tmp_path / "nowhere.toml")


def test_a_file_in_another_encoding_is_a_config_error(tmp_path: Path) -> None:
    """A file that is not UTF-8 is not TOML."""
    path = tmp_path / "c.toml"
    path.write_bytes(b'model.name = "\xff"')
    with pytest.raises(ConfigError, match="not TOML"):
        config.load(path)


def test_a_nul_character_is_a_config_error(tmp_path: Path) -> None:
    """No path and no address has a NUL; the system's calls would end with an exception."""
    line = refusal(tmp_path, 'snapshots.directory = "a\\u0000"')
    assert line == r"$.snapshots.directory: has a NUL character (\u0000); remove it"


@pytest.mark.parametrize(
    ("value", "why"), [("[" * 5000, "nested too deeply"), ("9" * 5000, "an integer has too many digits")]
)
def test_limits_of_the_parser_are_config_errors(tmp_path: Path, value: str, why: str) -> None:
    """A file that Python's parser cannot hold is refused in one line."""
    assert why in refusal(tmp_path, f"model.threads = {value}")


WITH_SECRETS = """
[streams.door]
sources = [{ kind = "url", url = "rtsp://user:${CAM}@192.0.2.7/1" }, { kind = "synthetic", video = false }]
[streams.gate]
sources = [{ kind = "url", url = "${GATE}" }]
[streams.off]
enabled = false
sources = [{ kind = "url", url = "rtsp://user:hunter2@192.0.2.7/1?key=${OFF}" }]
"""


def test_secrets_are_looked_up_separately(tmp_path: Path) -> None:
    """A configuration keeps references; `secrets_of` reads those of enabled streams from the given environment."""
    settings = config.load(write_config(tmp_path, WITH_SECRETS))
    assert settings.streams["door"].sources[0] == Url("rtsp://user:${CAM}@192.0.2.7/1")
    environment = {"CAM": "p@ss", "GATE": "http://u:x@h/", "MORE": "y"}
    assert config.secrets_of(settings, environment) == {"CAM": "p@ss", "GATE": "http://u:x@h/"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"GATE": "http://h"}, "door.sources[0].url: the environment variable CAM is not set; set it"),
        ({"CAM": "", "GATE": "http://h"}, "door.sources[0].url: the environment variable CAM is empty"),
        ({"CAM": "x", "GATE": "s3cret"}, "gate.sources[0].url: url must begin with one of rtsp,"),
        ({"CAM": "x", "GATE": "http://u:s3cret/x@h"}, "gate.sources[0].url: url has an invalid host or port"),
        ({"CAM": "x", "GATE": "http://${s3cret}"}, "gate.sources[0].url: a secret must not refer to another"),
    ],
)
def test_a_missing_or_wrong_secret_is_named(tmp_path: Path, environment: dict[str, str], expected: str) -> None:
    """The error has the place and the name of the secret, and never its value."""
    with pytest.raises(ConfigError) as caught:
        config.secrets_of(config.load(write_config(tmp_path, WITH_SECRETS)), environment)
    assert str(caught.value).startswith(f"$.streams.{expected}")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("defaults", [True, False])
def test_a_shown_configuration_reads_back(tmp_path: Path, defaults: bool) -> None:
    """The table as TOML is an equal configuration, from any folder; without defaults it is short."""
    (tmp_path / "elsewhere").mkdir()
    settings = config.load(write_config(tmp_path, uncommented()))
    shown = tomli_w.dumps(config.table(settings, defaults=defaults))
    assert config.load(write_config(tmp_path / "elsewhere", shown)) == settings
    table = tomllib.loads(shown)
    if defaults:
        assert set(table) == set(config.Config.__struct_fields__)
        assert set(table["window"]) == set(config.WindowConfig.__struct_fields__)
    else:
        assert "window" not in table


def test_no_password_is_shown(tmp_path: Path) -> None:
    """Passwords in a URL are masked; everything else stays."""
    settings = config.load(write_config(tmp_path, WITH_SECRETS))
    shown = tomli_w.dumps(config.table(settings, defaults=True))
    assert "hunter2" not in shown
    read = config.load(write_config(tmp_path, shown))
    assert read.streams["off"].sources == (Url("rtsp://user:***@192.0.2.7/1?key=${OFF}"),)
    assert {**read.streams, "off": settings.streams["off"]} == settings.streams


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ('{ kind = "pipe", path = "-" }', "standard input is read by $.streams.a.sources[0] already"),
        ('{ kind = "pipe", path = "./x" }', ""),
        ('{ kind = "pipe", path = "y", raw = "s24le,16000,1" }', "unknown sample format 's24le'"),
        ('{ kind = "pipe", path = "y", raw = "s16le,16000,1", only = "video" }', "raw is audio"),
        ('{ kind = "pipe", path = "y", raw = "s16le,8000,1", highpass_hz = 4000 }', "below half of raw's rate"),
        ('{ kind = "pipe", path = "y", read_timeout_s = 0 }', "must be above 0"),
        ('{ kind = "pipe", path = "" }', "path must not be empty"),
    ],
)
def test_pipes(tmp_path: Path, second: str, why: str) -> None:
    """A pipe has one reader; a FIFO's path starts at the file's folder; raw, its options and time-outs are checked."""
    text = f'streams.a.sources = [{{ kind = "pipe", path = "-" }}]\nstreams.b.sources = [{second}]'
    if why:
        assert why in refusal(tmp_path, text)
    else:
        sources = config.load(write_config(tmp_path, text)).streams
        assert sources["a"].sources == (Pipe("-"),)
        assert sources["b"].sources == (Pipe(str(tmp_path / "x")),)
