"""Configuration: what is read, what is refused, and that the annotated file is true."""

import contextlib
import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from perceiverd import config
from perceiverd.errors import ConfigError
from perceiverd.sources import File, Source, Synthetic, Url
from perceiverd.window import Patience

CONFIGS = Path(__file__).parents[1] / "configs"
CLIP = '[streams.door]\nsources = [{kind = "file", path = "a.mp4"}]\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "c.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> str:
    """The one line with which the text is refused, without the file's name."""
    path = written(folder, text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line.removeprefix(f"{path}: ")


def uncommented() -> str:
    """The annotated file with its commented options in force."""
    text = (CONFIGS / "perceiverd.toml").read_text()
    return re.sub(r"^# (?=\[|[a-z_]+ = )", "", text, flags=re.MULTILINE)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    """Every option has a default."""
    assert config.load(written(tmp_path, "")) == config.Config()


def test_the_annotated_file_equals_the_defaults() -> None:
    """configs/perceiverd.toml changes nothing."""
    path = CONFIGS / "perceiverd.toml"
    assert config.load(path) == config.Config()
    table = tomllib.loads(path.read_text())
    for name in ("model", "window", "publish"):
        assert set(table[name]) == set(getattr(config.Config(), name).__struct_fields__)


def test_the_annotated_file_shows_every_option(tmp_path: Path) -> None:
    """Each field of a stream and of every kind of source stands in the annotated file, with a value that is valid."""
    text = uncommented()
    assert config.load(written(tmp_path, text)).streams
    streams = tomllib.loads(text)["streams"].values()
    assert {key for stream in streams for key in stream} == set(config.Stream.__struct_fields__)
    shown = {source["kind"]: set(source) - {"kind"} for stream in streams for source in stream["sources"]}
    union = inspect.type_info(Source)
    assert isinstance(union, inspect.UnionType)
    kinds = [kind for kind in union.types if isinstance(kind, inspect.StructType)]
    assert shown == {kind.tag: {field.name for field in kind.fields} for kind in kinds}


def test_every_option_is_explained() -> None:
    """Each option of the annotated file has a comment above it, or above the group in which it stands."""
    lines = uncommented().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"[a-z_]+ = ", line):
            above = next(before for before in reversed(lines[:number]) if not re.match(r"[a-z_]+ = |\[", before))
            assert above.startswith("# "), line


def test_the_demo_plays_what_is_there() -> None:
    """configs/demo.toml names the bundled clip by a path that is right wherever it is run."""
    sources = config.load(CONFIGS / "demo.toml").streams["demo"].sources
    assert sources == (File(str(CONFIGS / "demo" / "clip.mp4")),)


def test_patience_has_one_default() -> None:
    """The config's patience and the windower's are the same."""
    window, patience = config.Window(), Patience()
    assert (window.wait_s, window.chunk_gap_s, window.frame_gap_s) == pytest.approx(
        (patience.wait_ns / 1e9, patience.chunk_gap_ns / 1e9, patience.frame_gap_ns / 1e9)
    )


def test_streams_and_sources_are_read(tmp_path: Path) -> None:
    """A stream has its sources in order, typed by kind; relative paths begin at the file's folder."""
    text = """
    model.name = "models/mine"
    publish.endpoint = "ipc://labels"
    [streams.door]
    enabled = false
    sources = [{kind = "file", path = "a.mp4", loop = true}, {kind = "synthetic", video = false}]
    [streams.gate]
    sources = [{kind = "url", url = "rtsp://camera/1"}, {kind = "file", path = "/srv/b.mkv"}]
    """
    read = config.load(written(tmp_path, text))
    assert read.streams["door"] == config.Stream(
        sources=(File(str(tmp_path / "a.mp4"), loop=True), Synthetic(video=False)), enabled=False
    )
    assert read.streams["gate"].sources == (Url("rtsp://camera/1"), File("/srv/b.mkv"))
    assert read.model.name == str(tmp_path / "models/mine")
    assert read.publish.endpoint == f"ipc://{tmp_path}/labels"


def test_a_bundled_model_is_no_path(tmp_path: Path) -> None:
    """A name without a slash is left as it is."""
    assert config.load(written(tmp_path, 'model.name = "mine"')).model.name == "mine"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[streams.door]\nsources = [{kind="file", pth="a"}]',
            "$.streams.door.sources[0].pth: no such option; did you mean `path`?",
        ),
        (
            '[streams.door]\nsources = [{kind="fiel", path="a"}]',
            "$.streams.door.sources[0].kind: 'fiel' is none; did you mean `file`?",
        ),
        ('[streams.door]\nsources = [{path="a"}]', "$.streams.door.sources[0]: object missing required field `kind`"),
        (
            '[streams.door]\nsources = [{kind="file"}]',
            "$.streams.door.sources[0]: object missing required field `path`",
        ),
        (
            '[streams.door]\nsources = [{kind="file", path=3}]',
            "$.streams.door.sources[0].path: expected `str`, got `int`",
        ),
        ("[streams.door]\nsources = []", "$.streams.door.sources: expected `array` of length >= 1"),
        ("[streams.door]\n", "$.streams.door: object missing required field `sources`"),
        ("[streams.door]\nsorces = []", "$.streams.door.sorces: no such option; did you mean `sources`?"),
        (
            "[streams]\nenabled = true",
            "$.streams.enabled: not a setting of all streams; expected a table [streams.NAME]",
        ),
        ("streams = 3", "$.streams: expected tables [streams.NAME]"),
        ('[streams."a/b"]\n', "$.streams: 'a/b' is no name of a stream: up to 64 letters, digits, _ and -"),
        ("[windw]\n", "$.windw: no such option; did you mean `window`?"),
        ("[xylophone]\n", "$.xylophone: no such option; there are model, window, publish, streams"),
        ("[window]\nhops = 1", "$.window.hops: no such option; did you mean `hop_s`?"),
        ("[window]\nhop_s = 0", "$.window.hop_s: expected `float` >= 0.001"),
        ("[window]\nhop_s = nan", "$.window.hop_s: expected `float`"),
        ("[window]\nhop_s = inf", "$.window.hop_s: expected `float` <= 3600.0"),
        ('[window]\nhop_s = "1"', "$.window.hop_s: expected `float`, got `str`"),
        ("[publish]\ntop = 0", "$.publish.top: expected `int` >= 1"),
        ("[publish]\ntop = true", "$.publish.top: expected `int`, got `bool`"),
        (
            '[publish]\nendpoint = "tcp://0.0.0.0:5"',
            "$.publish: endpoint tcp://0.0.0.0:5 could be reached from other machines",
        ),
        ('[publish]\nendpoint = "tcp://*:5"', "$.publish: endpoint tcp://*:5 could be reached from other machines"),
        (
            '[publish]\nendpoint = "tcp://127.0.0.1:65536"',
            "$.publish: endpoint tcp://127.0.0.1:65536 has a port above 65535",
        ),
        ('[publish]\nendpoint = "/run/x"', "$.publish: endpoint is ipc://PATH or tcp://127.0.0.1:PORT, not '/run/x'"),
        ('[model]\ndevice = "gpu"', "$.model: device is auto, cpu, cuda or cuda:N, not 'gpu'"),
        ("[model]\nthreads = -1", "$.model.threads: expected `int` >= 0"),
        ("model = 3", "$.model: expected `object`, got `int`"),
        ("a = \n", "not TOML: Invalid value (at line 1, column 5)"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    """A refusal names the file, the place and what was meant."""
    assert refusal(tmp_path, text).startswith(expected)


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    """A file that is not there is named, and so is why."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot read the configuration: No such file"):
        config.load(tmp_path / "nowhere.toml")


def test_a_file_in_another_encoding_is_a_config_error(tmp_path: Path) -> None:
    """TOML is UTF-8."""
    path = tmp_path / "c.toml"
    path.write_bytes(b'model.name = "\xff"')
    with pytest.raises(ConfigError, match="not TOML"):
        config.load(path)


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:5555", "tcp://[::1]:*", "tcp://localhost:1", "ipc://@name", "ipc:///x"]
)
def test_what_stays_on_this_machine_may_be_bound(endpoint: str) -> None:
    """Loopback and ipc are allowed."""
    assert config.Publish(endpoint=endpoint).endpoint == endpoint


PLAIN = st.none() | st.booleans() | st.integers() | st.text()


@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_no_table_ends_in_a_traceback(value: object) -> None:
    """Whatever stands in the file, it is a config or a ConfigError."""
    for table in ({"streams": value}, {"streams": {"a": {"sources": value}}}, {"window": value}, {"x": value}):
        with contextlib.suppress(ConfigError):
            config._parse(table)


def test_a_config_is_a_value() -> None:
    """It can't be changed once it is read."""
    with pytest.raises(AttributeError):
        config.Config().window.hop_s = 3  # type: ignore[misc]
    assert msgspec.structs.replace(config.Config()) == config.Config()
