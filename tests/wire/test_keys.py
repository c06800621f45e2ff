"""Keys in files: made, read, refused, and a list that changes while it is in use."""

import os
import stat
from pathlib import Path

import pytest
import zmq.auth

from perceiverd.core.errors import ConfigError
from perceiverd.wire import keys
from perceiverd.wire.keys import AllowList


def test_a_pair_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """The secret file is not for others, under any umask; both halves belong together."""
    before = os.umask(0)
    try:
        public, secret = keys.new("kitchen", tmp_path)
    finally:
        os.umask(before)
    assert (public.name, secret.name) == ("kitchen.key", "kitchen.key_secret")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    pair = keys.read_pair(secret)
    assert keys.read_public(public) == pair.public == zmq.curve_public(pair.secret)
    assert b"secret-key" not in public.read_bytes()
    assert pair.secret.decode() not in repr(pair)


def test_other_programs_of_zeromq_read_the_files(tmp_path: Path) -> None:
    """They are certificates as pyzmq and czmq know them, and theirs are read here."""
    public, secret = keys.new("kitchen", tmp_path)
    pair = keys.read_pair(secret)
    assert zmq.auth.load_certificate(public) == (pair.public, None)
    assert zmq.auth.load_certificate(secret) == (pair.public, pair.secret)
    theirs, _ = zmq.auth.create_certificates(tmp_path, "theirs")
    assert keys.read_public(Path(theirs)) == zmq.auth.load_certificate(theirs)[0]


def test_no_key_is_replaced(tmp_path: Path) -> None:
    """A name that is taken is one line."""
    _, secret = keys.new("kitchen", tmp_path)
    before = secret.read_bytes()
    with pytest.raises(ConfigError, match=r"kitchen\.key: is there already"):
        keys.new("kitchen", tmp_path)
    assert secret.read_bytes() == before


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-v", "x" * 65])
def test_a_name_that_is_no_file_s_is_one_line(name: str, tmp_path: Path) -> None:
    """Keys are put nowhere else than into the folder."""
    with pytest.raises(ConfigError, match="no name for a key"):
        keys.new(name, tmp_path)


def test_a_folder_that_is_missing_is_one_line(tmp_path: Path) -> None:
    """It is named."""
    with pytest.raises(ConfigError, match=r"nowhere/kitchen\.key: cannot write the key: No such file"):
        keys.new("kitchen", tmp_path / "nowhere")


def test_a_secret_that_is_none_is_refused(tmp_path: Path) -> None:
    """Missing, without keys, with half of one, or open to every user: one line each, without the secret."""
    public, secret = keys.new("kitchen", tmp_path)
    with pytest.raises(ConfigError, match=r"kitchen\.key: holds no secret key"):
        keys.read_pair(public)
    with pytest.raises(ConfigError, match="cannot read the key: No such file"):
        keys.read_pair(tmp_path / "missing.key_secret")
    text = keys.read_pair(secret).secret.decode()
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="every user may read this secret key; chmod 600") as caught:
        keys.read_pair(secret)
    assert text not in str(caught.value)
    secret.chmod(0o600)
    secret.write_text(secret.read_text().replace(text, text[:-1]))
    with pytest.raises(ConfigError, match="holds no secret key"):
        keys.read_pair(secret)


def test_the_list_follows_its_folder(tmp_path: Path) -> None:
    """What is added is on it, what is removed is off it, and only a removal is a reason to cut connections."""
    first, secret = keys.new("first", tmp_path)
    clients = AllowList(tmp_path)
    pair = keys.read_pair(secret)
    assert clients.name_of(pair.public) == "first"
    assert not clients.refresh()
    second, _ = keys.new("second", tmp_path)
    key = keys.read_public(second)
    assert clients.name_of(key) is None
    assert not clients.refresh()
    assert clients.name_of(key) == "second"
    first.unlink()
    assert clients.refresh()
    assert (clients.name_of(pair.public), clients.name_of(key)) == (None, "second")
    assert not clients.refresh()


def test_a_key_that_is_replaced_is_off_the_list(tmp_path: Path) -> None:
    """The same file with another key is another client."""
    public, secret = keys.new("kitchen", tmp_path)
    clients = AllowList(tmp_path)
    old = keys.read_public(public)
    public.unlink()
    secret.unlink()
    keys.new("kitchen", tmp_path)
    assert clients.refresh()
    assert clients.name_of(old) is None
    assert clients.name_of(keys.read_public(public)) == "kitchen"


def test_what_cannot_be_read_stays_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file half written, and a folder that is away, lock nobody out; the log says so."""
    folder = tmp_path / "clients"
    folder.mkdir()
    public, _ = keys.new("kitchen", folder)
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


def test_a_list_that_cannot_be_read_at_the_start_is_one_line(tmp_path: Path) -> None:
    """The daemon doesn't begin with a list that isn't what was meant."""
    with pytest.raises(ConfigError, match="clients' keys: No such file or directory; make the folder, or set"):
        AllowList(tmp_path / "nowhere")
    (tmp_path / "broken.key").write_text("hello")
    with pytest.raises(ConfigError, match=r"broken\.key: holds no public key"):
        AllowList(tmp_path)
