"""Keys in files: created, read and refused, and an allow-list that changes while it is in use."""

import os
import stat
from pathlib import Path

import pytest
import zmq.auth

from perceiverd.core.errors import ConfigError
from perceiverd.wire import keys
from perceiverd.wire.keys import AllowList


def test_only_the_owner_may_read_a_new_secret_key(tmp_path: Path) -> None:
    """No umask opens the secret file to others, and the two keys belong together."""
    before = os.umask(0)
    try:
        public, secret = keys.create_pair("kitchen", tmp_path)
    finally:
        os.umask(before)
    assert (public.name, secret.name) == ("kitchen.key", "kitchen.key_secret")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    pair = keys.read_pair(secret)
    assert keys.read_public(public) == pair.public == zmq.curve_public(pair.secret)
    assert b"secret-key" not in public.read_bytes()
    assert pair.secret.decode() not in repr(pair)


def test_the_files_have_zeromq_s_usual_form(tmp_path: Path) -> None:
    """Our files can be read by pyzmq, and its files by us."""
    public, secret = keys.create_pair("kitchen", tmp_path)
    pair = keys.read_pair(secret)
    assert zmq.auth.load_certificate(public) == (pair.public, None)
    assert zmq.auth.load_certificate(secret) == (pair.public, pair.secret)
    theirs, _ = zmq.auth.create_certificates(tmp_path, "theirs")
    assert keys.read_public(Path(theirs)) == zmq.auth.load_certificate(theirs)[0]


def test_an_existing_key_is_not_replaced(tmp_path: Path) -> None:
    """A name that is in use is one line."""
    _, secret = keys.create_pair("kitchen", tmp_path)
    before = secret.read_bytes()
    with pytest.raises(ConfigError, match=r"kitchen\.key: the file exists already"):
        keys.create_pair("kitchen", tmp_path)
    assert secret.read_bytes() == before


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-v", "x" * 65])
def test_an_invalid_name_is_one_line(name: str, tmp_path: Path) -> None:
    """A name cannot lead out of the folder."""
    with pytest.raises(ConfigError, match="invalid key name"):
        keys.create_pair(name, tmp_path)


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    """The error names the file and the reason."""
    with pytest.raises(ConfigError, match=r"nowhere/kitchen\.key: cannot write the key: No such file"):
        keys.create_pair("kitchen", tmp_path / "nowhere")


def test_an_unusable_secret_key_is_refused(tmp_path: Path) -> None:
    """A file that is missing, broken or readable by every user is one line, without the secret."""
    public, secret = keys.create_pair("kitchen", tmp_path)
    with pytest.raises(ConfigError, match=r"kitchen\.key: no secret key in this file"):
        keys.read_pair(public)
    with pytest.raises(ConfigError, match="cannot read the key: No such file"):
        keys.read_pair(tmp_path / "missing.key_secret")
    text = keys.read_pair(secret).secret.decode()
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="every user can read this secret key; run: chmod 600") as caught:
        keys.read_pair(secret)
    assert text not in str(caught.value)
    secret.chmod(0o600)
    secret.write_text(secret.read_text().replace(text, text[:-1]))
    with pytest.raises(ConfigError, match="no secret key in this file"):
        keys.read_pair(secret)


def test_the_list_follows_its_folder(tmp_path: Path) -> None:
    """Added files are listed and removed files are not. Only a removal is reported, as a reason to disconnect."""
    first, secret = keys.create_pair("first", tmp_path)
    clients = AllowList(tmp_path)
    pair = keys.read_pair(secret)
    assert clients.name_of(pair.public) == "first"
    assert not clients.refresh()
    second, _ = keys.create_pair("second", tmp_path)
    key = keys.read_public(second)
    assert clients.name_of(key) is None
    assert not clients.refresh()
    assert clients.name_of(key) == "second"
    first.unlink()
    assert clients.refresh()
    assert (clients.name_of(pair.public), clients.name_of(key)) == (None, "second")
    assert not clients.refresh()


def test_a_replaced_key_is_no_longer_listed(tmp_path: Path) -> None:
    """The same file with another key admits only the new key."""
    public, secret = keys.create_pair("kitchen", tmp_path)
    clients = AllowList(tmp_path)
    old = keys.read_public(public)
    public.unlink()
    secret.unlink()
    keys.create_pair("kitchen", tmp_path)
    assert clients.refresh()
    assert clients.name_of(old) is None
    assert clients.name_of(keys.read_public(public)) == "kitchen"


def test_an_unreadable_file_or_folder_locks_nobody_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A half-written file and a missing folder are logged, and their clients stay listed."""
    folder = tmp_path / "clients"
    folder.mkdir()
    public, _ = keys.create_pair("kitchen", folder)
    key = keys.read_public(public)
    clients = AllowList(folder)
    public.write_text("curve\n    public-key = ")
    assert not clients.refresh()
    assert clients.name_of(key) == "kitchen"
    assert "client-key-unread" in caplog.text
    folder.rename(tmp_path / "away")
    assert not clients.refresh()
    assert clients.name_of(key) == "kitchen"
    assert "client-keys-unread" in caplog.text


def test_a_list_that_is_unreadable_at_the_start_is_one_line(tmp_path: Path) -> None:
    """The daemon does not start with an incomplete list."""
    with pytest.raises(ConfigError, match="client keys: No such file or directory; create the folder, or set"):
        AllowList(tmp_path / "nowhere")
    (tmp_path / "broken.key").write_text("hello")
    with pytest.raises(ConfigError, match=r"broken\.key: no public key in this file"):
        AllowList(tmp_path)
