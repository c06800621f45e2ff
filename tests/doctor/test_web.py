"""The doctor's check of the web page."""

from pathlib import Path

from perceiverd.doctor.web import web
from perceiverd.web.passwords import PasswordHash


def test_without_a_page_there_is_no_finding(tmp_path: Path) -> None:
    """Most machines have none; one that never ran is none."""
    (tmp_path / "web.toml").write_text("")
    assert list(web(tmp_path / "web.toml", tmp_path / "never")) == []


def test_a_wrong_or_open_configuration_is_a_fault(tmp_path: Path) -> None:
    """One line says what is wrong, and what to do."""
    path = tmp_path / "web.toml"
    path.write_text("[server]\nlisten = '0.0.0.0:8480'\n")
    (found,) = web(path, tmp_path)
    assert (found.verdict, "set a password" in found.what) == ("fault", True)
    path.write_text("[server]\nlisten = 8480\n")
    (found,) = web(path, tmp_path)
    assert (found.verdict, found.do) == ("fault", f"correct {path}, then run systemctl restart perceiverd-web")


def test_what_is_missing_or_readable_for_all(tmp_path: Path) -> None:
    """The hash of the password, the snapshots, the history and encryption."""
    path, secret = tmp_path / "web.toml", tmp_path / "password"
    PasswordHash(b"s" * 16, b"d" * 64).write(secret)
    secret.chmod(0o644)
    path.write_text(
        f"[server]\nlisten = '0.0.0.0:8480'\npassword_file = '{secret}'\n[history]\ndirectory = '{tmp_path}'\n"
        f"[daemons.a]\nendpoint = 'ipc:///x'\nmedia = '{tmp_path}/none'\n"
    )
    verdicts = [(each.verdict, each.what) for each in web(path, tmp_path)]
    assert verdicts[0] == ("fault", f"every user can read {secret}")
    texts = " ".join(what for verdict, what in verdicts if verdict == "warning")
    assert all(word in texts for word in ("not encrypted", f"{tmp_path}/none", "there is no history"))
    assert verdicts[-1][0] == "ok"


def test_a_page_behind_a_proxy_without_a_password_is_a_warning(tmp_path: Path) -> None:
    """The proxy may ask for a password, so it is no fault."""
    path = tmp_path / "web.toml"
    path.write_text("[server]\nhosts = ['cams.example.org']\n[daemons.a]\nendpoint = 'ipc:///x'\n")
    warnings = [each.what for each in web(path, tmp_path) if each.verdict == "warning"]
    assert any("has no password" in what for what in warnings)
