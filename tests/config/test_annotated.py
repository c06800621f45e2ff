"""The annotated example `configs/perceiverd.toml`: complete, equal to the defaults, with the comments of the code."""

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from docs.generate import configs
from perceiverd import config
from perceiverd.sources.specs import File, Source
from tests.support.configs import CONFIGS, EXAMPLE, uncommented, write_config


def _options(section: Any) -> dict[str, Any]:
    return msgspec.structs.asdict(section)


def test_the_example_equals_the_defaults() -> None:
    """configs/perceiverd.toml sets each option to its default, and leaves out only those without one."""
    assert config.load(EXAMPLE) == config.Config()
    table = tomllib.loads(EXAMPLE.read_text())
    for name, section in _options(config.Config()).items():
        if name != "streams":
            # Options without a default, and tables by name, can only be shown as a comment.
            assert set(table[name]) == {key for key, usual in _options(section).items() if usual not in (None, {})}


def test_the_example_shows_every_option(tmp_path: Path) -> None:
    """Each field of each table, of a stream and of every kind of source is in the example, with a valid value."""
    text = uncommented()
    assert config.load(write_config(tmp_path, text)).streams
    streams = tomllib.loads(text)["streams"].values()
    assert {key for stream in streams for key in stream} == set(config.StreamConfig.__struct_fields__)
    shown = {source["kind"]: set(source) - {"kind"} for stream in streams for source in stream["sources"]}
    for name, section in _options(config.Config()).items():
        assert name == "streams" or set(tomllib.loads(text)[name]) == set(_options(section))
    union = inspect.type_info(Source)
    assert isinstance(union, inspect.UnionType)
    kinds = [kind for kind in union.types if isinstance(kind, inspect.StructType)]
    assert shown == {kind.tag: {field.name for field in kind.fields} for kind in kinds}


def test_every_option_is_explained() -> None:
    """Each option of the example has a comment above it, or above the group that it belongs to."""
    lines = uncommented().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"[a-z_]+ = ", line):
            above = next(before for before in reversed(lines[:number]) if not re.match(r"[a-z_]+ = |\[", before))
            assert above.startswith("# "), line


def test_comments_are_the_docstrings() -> None:
    """The comment above an option is the docstring under its field; otherwise run `make docs`."""
    text = EXAMPLE.read_text()
    assert configs.annotated(text) == text, "run `make docs`"


def test_a_comment_is_replaced_and_the_rest_stays() -> None:
    """Only the comment directly above an option changes: not values, headings or comments above headings."""
    text = "# Mine.\n[window]\n# Old.\n# Older.\nhop_s = 3\n\n# [streams.a]\n# enabled = false\n"
    lines = configs.annotated(text).splitlines()
    assert lines[:2] == ["# Mine.", "[window]"] and "# Old." not in lines and "hop_s = 3" in lines
    assert lines[-3:] == ["# [streams.a]", "# false switches the stream off without deleting it.", "# enabled = false"]


def test_no_line_of_a_comment_looks_like_an_option() -> None:
    """An example inside a sentence never starts a line, because `# on = 0.5` is an option that is commented out."""
    for columns in range(len("on = 0.5 gives off = 0.27") + 40):
        comment = configs._comment("word " * (columns // 5) + "x" * (columns % 5) + " on = 0.5 gives off = 0.27")
        assert not any(configs.OPTION.match(line) for line in comment)


def test_the_demo_plays_the_bundled_clip() -> None:
    """configs/demo.toml names the clip by a path that is right from every working directory."""
    sources = config.load(CONFIGS / "demo.toml").streams["demo"].sources
    assert sources == (File(str(CONFIGS / "demo" / "clip.mp4")),)
