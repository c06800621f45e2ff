"""Configuration: what is read, what is refused, and that the annotated file is true."""

import contextlib
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from perceiverd import config
from perceiverd.config import reader, toml
from perceiverd.core.errors import ConfigError
from perceiverd.pipeline.rules import EventOptions, LabelOptions, StreamOptions
from perceiverd.pipeline.windower import Tolerance
from perceiverd.sources.specs import File, Source, Synthetic, Url

CONFIGS = Path(__file__).parents[2] / "configs"
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


def _options(section: Any) -> dict[str, Any]:
    return msgspec.structs.asdict(section)


def test_the_annotated_file_equals_the_defaults() -> None:
    """configs/perceiverd.toml changes nothing."""
    path = CONFIGS / "perceiverd.toml"
    assert config.load(path) == config.Config()
    table = tomllib.loads(path.read_text())
    for name, section in _options(config.Config()).items():
        if name != "streams":
            # What has no default, and tables by name, can only be shown as a comment.
            assert set(table[name]) == {key for key, usual in _options(section).items() if usual not in (None, {})}


def test_the_annotated_file_shows_every_option(tmp_path: Path) -> None:
    """Each field of a stream and of every kind of source stands in the annotated file, with a value that is valid."""
    text = uncommented()
    assert config.load(written(tmp_path, text)).streams
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
    window, patience = config.WindowConfig(), Tolerance()
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
    assert read.streams["door"] == config.StreamConfig(
        sources=(File(str(tmp_path / "a.mp4"), loop=True), Synthetic(video=False)), enabled=False
    )
    assert read.streams["gate"].sources == (Url("rtsp://camera/1"), File("/srv/b.mkv"))
    assert read.model.name == str(tmp_path / "models/mine")
    assert read.publish.endpoint == f"ipc://{tmp_path}/labels"


def test_options_of_events_are_read(tmp_path: Path) -> None:
    """In general, for a label, for a stream, and for a label of a stream; names may have spaces and commas."""
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
    read = config.load(written(tmp_path, text))
    assert read.events == EventOptions(on=0.6, labels={"Dog": LabelOptions(cooldown_s=60)})
    assert read.streams["door"].events == StreamOptions(
        deny=("Squeak",), labels={"Child speech, kid speaking": LabelOptions(on=0.9)}
    )


def test_a_bundled_model_is_no_path(tmp_path: Path) -> None:
    """A name without a slash is left as it is."""
    assert config.load(written(tmp_path, 'model.name = "mine"')).model.name == "mine"


@pytest.mark.parametrize("address", ["0.0.0.0", "*", "192.0.2.7", "[::]", "eth0", "host.example"])
def test_labels_leave_the_machine_with_keys_or_on_purpose(address: str, tmp_path: Path) -> None:
    """An address that others can reach needs both keys, or the word that it is insecure; keys lie beside the file."""
    text = f'[publish]\nendpoint = "tcp://{address}:5555"\n'
    assert "could be reached from other machines, unencrypted" in refusal(tmp_path, text)
    assert config.load(written(tmp_path, text + "insecure = true")).publish.insecure
    publish = config.load(written(tmp_path, text + 'secret_key = "a.key_secret"\nclient_keys = "/etc/clients"')).publish
    assert (publish.secret_key, publish.client_keys) == (f"{tmp_path}/a.key_secret", "/etc/clients")


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
        (
            '[streams.door]\nsources = [{path="a"}]',
            "$.streams.door.sources[0]: the option `kind` is missing; there are file, url, synthetic, camera",
        ),
        (
            '[streams.door]\nsources = [{kind="file"}]',
            "$.streams.door.sources[0]: the option `path` is missing",
        ),
        (
            '[streams.door]\nsources = [{kind="file", path=3}]',
            "$.streams.door.sources[0].path: expected `str`, got `int`",
        ),
        (
            "[streams.door]\nsources = []",
            '$.streams.door.sources: expected a list of length >= 1, such as sources = [{ kind = "camera" }]',
        ),
        (
            '[streams.door]\nsources = "camera"',
            '$.streams.door.sources: expected a list, got `str`, such as sources = [{ kind = "camera" }]',
        ),
        (
            '[streams.door]\nsources = ["camera"]',
            "$.streams.door.sources[0]: expected a table, got `str`",
        ),
        (
            "[streams.door]\n",
            '$.streams.door: the option `sources` is missing, such as sources = [{ kind = "camera" }]',
        ),
        ("[streams.door]\nsorces = []", "$.streams.door.sorces: no such option; did you mean `sources`?"),
        (
            "[streams]\nenabled = true",
            "$.streams.enabled: not a setting of all streams; expected a table [streams.NAME]",
        ),
        ("streams = 3", "$.streams: expected tables [streams.NAME]"),
        ('[streams."a/b"]\n', "$.streams: 'a/b' is no name of a stream: up to 64 letters, digits, _ and -"),
        ("[windw]\n", "$.windw: no such option; did you mean `window`?"),
        ("[xylophone]\n", f"$.xylophone: no such option; there are {', '.join(config.Config.__struct_fields__)}"),
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
        (
            '[publish]\nendpoint = "tcp://1.2.3.4"',
            "$.publish: endpoint is tcp://ADDRESS:PORT, such as tcp://127.0.0.1:5555",
        ),
        ('[publish]\nsecret_key = "k"', "$.publish: secret_key and client_keys go together"),
        (
            '[publish]\ninsecure = true\nsecret_key = "k"\nclient_keys = "c"',
            "$.publish: insecure = true and secret_key contradict each other",
        ),
        ('[publish]\nendpoint = "/run/x"', "$.publish: endpoint is ipc://PATH or tcp://127.0.0.1:PORT, not '/run/x'"),
        ('[model]\ndevice = "gpu"', "$.model: device is auto, cpu, cuda or cuda:N, not 'gpu'"),
        ("[model]\nthreads = -1", "$.model.threads: expected `int` >= 0"),
        ('model.name = "${HOME}/x"', "$.model.name: ${NAME} is filled in nowhere but in the url of a source"),
        (
            '[streams.door]\nsources = [{kind="file", path="${A}"}]',
            "$.streams.door.sources[0].path: ${NAME} is filled in nowhere but in the url of a source",
        ),
        (
            '[streams.door]\nsources = [{kind="url", url="rtsp://u:${A@h"}]',
            "$.streams.door.sources[0]: `${` begins ${NAME}, an environment variable",
        ),
        (
            '[streams.door]\nsources = [{kind="url", url="rtsp://u:hun/ter2@h"}]',
            "$.streams.door.sources[0]: url has a host or port that cannot be one; a password with",
        ),
        *(
            (
                f'[streams.door]\nsources = [{{kind="url", url="rtsp://{user}@192.0.2.7/stream"}}]',
                "$.streams.door.sources[0]: url has an @ after its host and port; a password with / ? or # in it",
            )
            for user in ("admin:2024#cam", "admin:1234/x", "admin:1234?x", "admin:1${A}/x")
        ),
        ("[events]\non = 0", "$.events.on: expected `float` > 0.0"),
        ("[events]\noff = 1", "$.events.off: expected `float` < 1.0"),
        ("[events]\nmin_duration = 1", "$.events.min_duration: no such option; did you mean `min_duration_s`?"),
        ("[events.labels.Dog]\non = 1.5", "$.events.labels.Dog.on: expected `float` < 1.0"),
        ("[events.labels.Dog]\nonn = 0.5", "$.events.labels.Dog.onn: no such option; did you mean `on`?"),
        ("[events.labels.Dog]\nupdate_s = 3", "$.events.labels.Dog.update_s: no such option; there are on, off"),
        ("[events.labels]\nDog = 0.5", "$.events.labels.Dog: expected a table, got `float`"),
        ("[events]\nlabels = 3", "$.events: expected a table, in it tables [events.labels.NAME]"),
        ("events = 3", "$.events: expected a table"),
        (
            CLIP + "[streams.door.events.labels.Dog]\non = -1",
            "$.streams.door.events.labels.Dog.on: expected `float` > 0.0",
        ),
        (CLIP + "[streams.door.events]\nonn = 0.5", "$.streams.door.events.onn: no such option; did you mean `on`?"),
        ("model = 3", "$.model: expected a table, got `int`"),
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
    assert config.PublishConfig(endpoint=endpoint).endpoint == endpoint


SECRETIVE = """
[streams.door]
sources = [{ kind = "url", url = "rtsp://user:${CAM}@192.0.2.7/1" }, { kind = "synthetic", video = false }]
[streams.gate]
sources = [{ kind = "url", url = "${GATE}" }]
[streams.off]
enabled = false
sources = [{ kind = "url", url = "rtsp://user:hunter2@192.0.2.7/1?key=${OFF}" }]
"""


def test_secrets_are_looked_up_apart(tmp_path: Path) -> None:
    """A config holds references; what they stand for is asked of the environment that is given, as far as needed."""
    settings = config.load(written(tmp_path, SECRETIVE))
    assert settings.streams["door"].sources[0] == Url("rtsp://user:${CAM}@192.0.2.7/1")
    environment = {"CAM": "p@ss", "GATE": "http://u:x@h/", "MORE": "y"}
    assert config.secrets_of(settings, environment) == {"CAM": "p@ss", "GATE": "http://u:x@h/"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"GATE": "http://h"}, "door.sources[0].url: the environment variable CAM is not set; set it"),
        ({"CAM": "", "GATE": "http://h"}, "door.sources[0].url: the environment variable CAM is empty"),
        ({"CAM": "x", "GATE": "s3cret"}, "gate.sources[0].url: url begins with one of rtsp,"),
        ({"CAM": "x", "GATE": "http://u:s3cret/x@h"}, "gate.sources[0].url: url has a host or port that cannot be one"),
        ({"CAM": "x", "GATE": "http://${s3cret}"}, "gate.sources[0].url: a secret refers to another"),
    ],
)
def test_a_secret_that_is_missing_or_wrong_is_named(tmp_path: Path, environment: dict[str, str], expected: str) -> None:
    """The line says where and which, and never what it holds."""
    with pytest.raises(ConfigError) as caught:
        config.secrets_of(config.load(written(tmp_path, SECRETIVE)), environment)
    assert str(caught.value).startswith(f"$.streams.{expected}")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("defaults", [True, False])
def test_what_is_shown_reads_back(tmp_path: Path, defaults: bool) -> None:
    """The effective configuration as TOML is an equal configuration, whatever folder it is read from."""
    (tmp_path / "elsewhere").mkdir()
    settings = config.load(written(tmp_path, uncommented()))
    shown = toml.written(config.table(settings, defaults=defaults))
    assert config.load(written(tmp_path / "elsewhere", shown)) == settings
    told = tomllib.loads(shown)
    if defaults:
        assert set(told) == set(config.Config.__struct_fields__)
        assert set(told["window"]) == set(config.WindowConfig.__struct_fields__)
    else:
        assert "window" not in told


def test_no_password_is_shown(tmp_path: Path) -> None:
    """Passwords that are written out are masked, and nothing else is changed."""
    settings = config.load(written(tmp_path, SECRETIVE))
    shown = toml.written(config.table(settings, defaults=True))
    assert "hunter2" not in shown
    read = config.load(written(tmp_path, shown))
    assert read.streams["off"].sources == (Url("rtsp://user:***@192.0.2.7/1?key=${OFF}"),)
    assert {**read.streams, "off": settings.streams["off"]} == settings.streams


PLAIN = st.none() | st.booleans() | st.integers() | st.text()


@settings(deadline=None)
@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_no_table_ends_in_a_traceback(value: object) -> None:
    """Whatever stands in the file, it is a config or a ConfigError."""
    for table in ({"streams": value}, {"streams": {"a": {"sources": value}}}, {"window": value}, {"x": value}):
        with contextlib.suppress(ConfigError):
            reader._parse(table)


def test_a_config_is_a_value() -> None:
    """It can't be changed once it is read."""
    with pytest.raises(AttributeError):
        config.Config().window.hop_s = 3  # type: ignore[misc]
    assert msgspec.structs.replace(config.Config()) == config.Config()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", None),
        ('metrics.endpoint = "127.0.0.1:9464"', ("127.0.0.1", 9464)),
        ('metrics.endpoint = "[::1]:*"', ("::1", 0)),
        ('metrics = { endpoint = "0.0.0.0:80", insecure = true }', ("0.0.0.0", 80)),
    ],
)
def test_metrics_are_served_where_they_were_asked_for(
    tmp_path: Path, text: str, address: tuple[str, int] | None
) -> None:
    """Nowhere by default; beyond loopback only where that is written out."""
    assert config.load(written(tmp_path, text)).metrics.address == address


def test_labels_and_metrics_are_no_one_port(tmp_path: Path) -> None:
    """One address for both is refused before either is bound, with --endpoint too; two addresses may share a port."""
    both = 'metrics.endpoint = "127.0.0.1:9464"\npublish.endpoint = "tcp://{}"'
    told = "publish.endpoint and metrics.endpoint are the same port 9464; change one of them"
    assert refusal(tmp_path, both.format("127.0.0.1:9464")) == f"$: {told}"
    assert refusal(tmp_path, both.format("localhost:9464")) == f"$: {told}"
    assert refusal(tmp_path, both.format("*:9464") + "\npublish.insecure = true") == f"$: {told}"
    for fine in ("127.0.0.2:9464", "127.0.0.1:9465", "127.0.0.1:*"):
        config.load(written(tmp_path, both.format(fine)))
    with pytest.raises(ConfigError, match=f"^--endpoint: {told}$"):
        config.load(written(tmp_path, 'metrics.endpoint = "127.0.0.1:9464"'), "tcp://127.0.0.1:9464")


@pytest.mark.parametrize("endpoint", ["9464", "127.0.0.1", "127.0.0.1:99999", "http://127.0.0.1:80", "[::1]"])
def test_an_endpoint_of_metrics_that_is_none_is_refused(tmp_path: Path, endpoint: str) -> None:
    """The line says what one looks like; another says what an open one would be."""
    assert "endpoint is HOST:PORT, such as 127.0.0.1:9464" in refusal(tmp_path, f'metrics.endpoint = "{endpoint}"')
    line = refusal(tmp_path, 'metrics.endpoint = "0.0.0.0:9464"')
    assert "could be read from other machines" in line and "insecure = true" in line
