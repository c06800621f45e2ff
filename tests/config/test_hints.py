"""Errors in a configuration: one line with the file, the place and a suggestion."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiverd import config
from perceiverd.config import reader
from perceiverd.core.errors import ConfigError
from tests.support.configs import refusal

CLIP = '[streams.door]\nsources = [{kind = "file", path = "a.mp4"}]\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[streams.door]\nsources = [{kind="file", pth="a"}]',
            "$.streams.door.sources[0].pth: unknown option; did you mean 'path'?",
        ),
        (
            '[streams.door]\nsources = [{kind="fiel", path="a"}]',
            "$.streams.door.sources[0].kind: unknown kind 'fiel'; did you mean 'file'?",
        ),
        (
            '[streams.door]\nsources = [{path="a"}]',
            "$.streams.door.sources[0]: the option 'kind' is missing; choose from file, url, pipe, synthetic, camera",
        ),
        (
            '[streams.door]\nsources = [{kind="file"}]',
            "$.streams.door.sources[0]: the option 'path' is missing",
        ),
        (
            '[streams.door]\nsources = [{kind="file", path=3}]',
            "$.streams.door.sources[0].path: expected a string, got an integer",
        ),
        (
            "[streams.door]\nsources = []",
            '$.streams.door.sources: expected a list of length >= 1, such as sources = [{ kind = "camera" }]',
        ),
        (
            '[streams.door]\nsources = "camera"',
            '$.streams.door.sources: expected a list, got a string, such as sources = [{ kind = "camera" }]',
        ),
        (
            '[streams.door]\nsources = ["camera"]',
            "$.streams.door.sources[0]: expected a table, got a string",
        ),
        (
            "[streams.door]\n",
            "$.streams.door: the option 'sources' is missing, such as sources = [{ kind = \"camera\" }]",
        ),
        ("[streams.door]\nsorces = []", "$.streams.door.sorces: unknown option; did you mean 'sources'?"),
        (
            "[streams]\nenabled = true",
            "$.streams.enabled: unknown option; write a table [streams.NAME] for each stream",
        ),
        ("streams = 3", "$.streams: expected tables [streams.NAME]"),
        ('[streams."a/b"]\n', "$.streams: invalid stream name 'a/b'; use up to 64 letters, digits, _ and -"),
        ("[windw]\n", "$.windw: unknown option; did you mean 'window'?"),
        ("[xylophone]\n", f"$.xylophone: unknown option; choose from {', '.join(config.Config.__struct_fields__)}"),
        ("[window]\nhops = 1", "$.window.hops: unknown option; did you mean 'hop_s'?"),
        ("[window]\nhop_s = 0", "$.window.hop_s: expected a number >= 0.001"),
        ("[window]\nhop_s = nan", "$.window.hop_s: expected a number"),
        ("[window]\nhop_s = inf", "$.window.hop_s: expected a number <= 3600.0"),
        ('[window]\nhop_s = "1"', "$.window.hop_s: expected a number, got a string"),
        ("[publish]\ntop = 0", "$.publish.top: expected an integer >= 1"),
        ("[publish]\ntop = true", "$.publish.top: expected an integer, got true or false"),
        (
            '[publish]\nendpoint = "tcp://0.0.0.0:5"',
            "$.publish: other machines could reach endpoint tcp://0.0.0.0:5, unencrypted; use ipc://PATH or",
        ),
        ('[publish]\nendpoint = "tcp://*:5"', "$.publish: other machines could reach endpoint tcp://*:5"),
        (
            '[publish]\nendpoint = "tcp://127.0.0.1:65536"',
            "$.publish: endpoint tcp://127.0.0.1:65536 has a port above 65535",
        ),
        (
            '[publish]\nendpoint = "tcp://1.2.3.4"',
            "$.publish: endpoint must be tcp://ADDRESS:PORT, such as tcp://127.0.0.1:5555",
        ),
        ('[publish]\nsecret_key = "k"', "$.publish: secret_key and client_keys belong together; set both or neither"),
        (
            '[publish]\ninsecure = true\nsecret_key = "k"\nclient_keys = "c"',
            "$.publish: insecure = true and secret_key contradict each other",
        ),
        (
            '[publish]\nendpoint = "/run/x"',
            "$.publish: endpoint must be ipc://PATH or tcp://127.0.0.1:PORT, not '/run/x'",
        ),
        ('[model]\ndevice = "gpu"', "$.model: device must be auto, cpu, cuda or cuda:N, not 'gpu'"),
        ("[model]\nthreads = -1", "$.model.threads: expected an integer >= 0"),
        ('model.name = "${HOME}/x"', "$.model.name: ${NAME} is replaced only in the url of a source"),
        (
            '[streams.door]\nsources = [{kind="file", path="${A}"}]',
            "$.streams.door.sources[0].path: ${NAME} is replaced only in the url of a source",
        ),
        (
            '[streams.door]\nsources = [{kind="url", url="rtsp://u:${A@h"}]',
            "$.streams.door.sources[0]: invalid `${`; write ${NAME} for an environment variable",
        ),
        (
            '[streams.door]\nsources = [{kind="url", url="rtsp://u:hun/ter2@h"}]',
            "$.streams.door.sources[0]: url has an invalid host or port; write a password with",
        ),
        *(
            (
                f'[streams.door]\nsources = [{{kind="url", url="rtsp://{user}@192.0.2.7/stream"}}]',
                "$.streams.door.sources[0]: url has an @ after its host and port; write a password with / ? or # in it",
            )
            for user in ("admin:2024#cam", "admin:1234/x", "admin:1234?x", "admin:1${A}/x")
        ),
        ("[events]\non = 0", "$.events.on: expected a number > 0.0"),
        ("[events]\noff = 1", "$.events.off: expected a number < 1.0"),
        ("[events]\nmin_duration = 1", "$.events.min_duration: unknown option; did you mean 'min_duration_s'?"),
        ("[events.labels.Dog]\non = 1.5", "$.events.labels.Dog.on: expected a number < 1.0"),
        ("[events.labels.Dog]\nonn = 0.5", "$.events.labels.Dog.onn: unknown option; did you mean 'on'?"),
        ("[events.labels.Dog]\nupdate_s = 3", "$.events.labels.Dog.update_s: unknown option; choose from on, off"),
        ("[events.labels]\nDog = 0.5", "$.events.labels.Dog: expected a table, got a number"),
        ("[events]\nlabels = 3", "$.events: expected a table, with tables [events.labels.NAME]"),
        ("events = 3", "$.events: expected a table"),
        (
            CLIP + "[streams.door.events.labels.Dog]\non = -1",
            "$.streams.door.events.labels.Dog.on: expected a number > 0.0",
        ),
        (CLIP + "[streams.door.events]\nonn = 0.5", "$.streams.door.events.onn: unknown option; did you mean 'on'?"),
        (
            '[streams.door]\nsources = [{kind="url", url="rtsp://h", transport="tpc"}]',
            "$.streams.door.sources[0].transport: unknown value 'tpc'; did you mean 'tcp'?",
        ),
        (
            '[streams.door]\nsources = [{kind="microphone", device=1.5}]',
            "$.streams.door.sources[0].device: expected an integer or a string, got a number",
        ),
        (
            '[streams.door]\nsources = [{kind="camera", width="wide"}]',
            "$.streams.door.sources[0].width: expected an integer, got a string",
        ),
        ("model = 3", "$.model: expected a table, got an integer"),
        ("a = \n", "not TOML: Invalid value (at line 1, column 5)"),
    ],
)
def test_an_error_names_the_place_and_suggests_a_fix(tmp_path: Path, text: str, expected: str) -> None:
    """The line has the file, the place in it, what is wrong, and what to write instead."""
    assert refusal(tmp_path, text).startswith(expected)


PLAIN = st.none() | st.booleans() | st.integers() | st.text()


@settings(deadline=None)
@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_no_table_ends_in_a_traceback(value: object) -> None:
    """Whatever a file holds, it is a configuration or a ConfigError."""
    for table in ({"streams": value}, {"streams": {"a": {"sources": value}}}, {"window": value}, {"x": value}):
        with contextlib.suppress(ConfigError):
            reader._parse(table)
