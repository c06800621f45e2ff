"""Why a URL cannot be opened, and which schemes FFmpeg supports."""

import socket
from pathlib import Path

import pytest

from perceiverd.sources.decode import diagnosis
from perceiverd.sources.specs import SCHEMES, Url


@pytest.mark.parametrize(("name", "why"), [("none.pem", "No such file or directory"), ("junk.pem", "it contains no")])
def test_an_unusable_file_of_authorities_is_named(tmp_path: Path, name: str, why: str) -> None:
    """If ca_file cannot be used, the text says so, and does not blame the network or the server."""
    (tmp_path / "junk.pem").write_text("no PEM\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        spec = Url(f"https://127.0.0.1:{server.getsockname()[1]}/", ca_file=str(tmp_path / name), open_timeout_s=3)
        assert diagnosis.unreachable(spec) is None
        text = diagnosis.unreachable(spec, secure=True)
    assert text
    assert text.startswith(f"ca_file {tmp_path / name} cannot be used ({why}")
    assert text.endswith("; name a PEM file that the service's user may read")


def test_an_unsupported_scheme_is_found() -> None:
    """A scheme that FFmpeg does not know is unsupported; tcp and rtsp are supported even if nothing answers."""
    assert diagnosis.unsupported(("tcp", "nonsense", "rtsp", "http")) == ("nonsense",)


def test_all_schemes_of_a_configuration_are_supported() -> None:
    """PyAV's wheels support every scheme that a configuration may use."""
    assert diagnosis.unsupported(SCHEMES) == ()
