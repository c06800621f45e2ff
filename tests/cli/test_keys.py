"""`perceiverd keys`, and the options of clients for keys."""

from pathlib import Path

from tests.support.program import Perceiverd


def test_keys_are_made(perceiverd: Perceiverd, tmp_path: Path) -> None:
    """The command writes two files and explains them without printing the secret; it never overwrites a key."""
    status, out, err = perceiverd("keys", "new", "kitchen", "--folder", tmp_path)
    assert (status, err) == (0, "")
    secret = tmp_path / "kitchen.key_secret"
    assert f'secret_key = "{secret}"' in out
    assert f"--server-key DAEMON.key --secret-key {secret}" in out
    assert secret.read_text().split('"')[3] not in out
    status, out, err = perceiverd("keys", "new", "kitchen", "--folder", tmp_path)
    assert (status, out) == (1, "")
    assert "kitchen.key: the file exists already" in err


def test_half_a_pair_of_keys_is_one_line(perceiverd: Perceiverd, tmp_path: Path) -> None:
    """A client needs the daemon's key and its own key; one of them alone is an error."""
    status, _, err = perceiverd("watch", "tcp://127.0.0.1:1", "--server-key", tmp_path / "daemon.key")
    assert status == 1
    assert "needs two files" in err
