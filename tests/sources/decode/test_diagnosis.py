"""What keeps a URL from being opened, told apart from what does not."""

import socket
from pathlib import Path

import pytest

from perceiverd.sources.decode import diagnosis
from perceiverd.sources.specs import Url


@pytest.mark.parametrize(("name", "why"), [("none.pem", "No such file or directory"), ("junk.pem", "no certificate")])
def test_a_file_of_authorities_that_cannot_be_used(tmp_path: Path, name: str, why: str) -> None:
    """It is what is wrong, and neither the network nor whoever takes the call."""
    (tmp_path / "junk.pem").write_text("no PEM\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        spec = Url(f"https://127.0.0.1:{server.getsockname()[1]}/", ca_file=str(tmp_path / name), open_timeout_s=3)
        assert diagnosis.unreached(spec) is None
        told = diagnosis.unreached(spec, secure=True)
    assert told
    assert told.startswith(f"ca_file {tmp_path / name} cannot be used ({why}")
    assert told.endswith("; name a PEM file that the service's user may read")
