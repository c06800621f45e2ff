"""Secrets: how they are looked up, put into a URL, and removed from texts."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.core.errors import ConfigError
from perceiverd.core.secrets import filled, look_up, masked, redacted, references

VALUES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


def test_references_are_found() -> None:
    """The names of references are found in order; other dollar signs are not references."""
    assert references("rtsp://${USER_1}:${credential:cam-1.pw}@h/$x?y=$1") == ("USER_1", "credential:cam-1.pw")


@pytest.mark.parametrize("text", ["${}", "${1A}", "${A", "${A-B}", "${credential:}", "${credential:../x}", "${file:x}"])
def test_a_broken_reference_is_an_error(text: str) -> None:
    """A typing mistake in a reference is an error; otherwise it would be sent as a password."""
    with pytest.raises(ValueError, match="invalid `"):
        references(text)


def test_a_variable_comes_from_the_given_environment() -> None:
    """The error for a missing, empty or too long variable has its name."""
    assert look_up("A", {"A": " x "}) == " x "
    for environment, why in (
        ({}, "is not set"),
        ({"A": ""}, "is empty"),
        ({"A": "x" * 5000}, "longer than 2048 characters"),
    ):
        with pytest.raises(ConfigError, match=f"environment variable A .*{why}"):
            look_up("A", environment)


def test_a_credential_is_a_file(tmp_path: Path) -> None:
    """A credential is read from the folder that systemd names, without the line break at its end."""
    (tmp_path / "cam").write_text("s3 cret\n")
    (tmp_path / "none").write_text("\n")
    (tmp_path / "raw").write_bytes(b"\xff\xfe")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert look_up("credential:cam", environment) == "s3 cret"
    for name, why in (("none", "is empty"), ("raw", "not UTF-8"), ("no", "No such file.*LoadCredential=no:FILE")):
        with pytest.raises(ConfigError, match=f"credential {name}.*{why}"):
            look_up(f"credential:{name}", environment)
    with pytest.raises(ConfigError, match="only in a systemd unit with LoadCredential=cam:FILE"):
        look_up("credential:cam", {})


@given(VALUES, VALUES, VALUES)
def test_any_password_fits_into_a_url(user: str, password: str, token: str) -> None:
    """User name, password and a value in the query can have any character, and the rest of the URL stays."""
    url = filled(
        "rtsp://${U}:${credential:p}@camera.example:554/a@b?t=${T}", {"U": user, "credential:p": password, "T": token}
    )
    parts = urlsplit(url)
    assert (parts.hostname, parts.port, parts.path) == ("camera.example", 554, "/a@b")
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == (user, password)
    assert unquote(parts.query.removeprefix("t=")) == token


def test_host_path_and_whole_url_are_not_encoded() -> None:
    """Parts that may have special characters of their own stay as they are."""
    assert filled("rtmp://${H}/live/${K}", {"H": "h:1935", "K": "a%20b/c"}) == "rtmp://h:1935/live/a%20b/c"
    assert filled("${URL}", {"URL": "http://u:p@h/x?y"}) == "http://u:p@h/x?y"
    with pytest.raises(KeyError):
        filled("http://${H}/", {})


@given(st.lists(st.text("abc%é ?", min_size=1), min_size=1, max_size=3), st.text("xyz:/@"))
def test_no_secret_is_left_in_a_text(values: list[str], around: str) -> None:
    """Each secret in a text, encoded or not, is replaced by its reference."""
    secrets = {f"CAM_{i}": value for i, value in enumerate(values)}
    url = filled("rtsp://x:${CAM_0}@h/${CAM_0}", secrets)
    for text in (around + around.join(values) + around, url):
        assert not any(value in redacted(text, secrets) for value in values)


def test_a_redacted_text_has_references() -> None:
    """The longest secret is replaced first, and the text shows which secret it was."""
    secrets = {"A": "se", "B": "secret", "C": "p@ss"}
    assert redacted("http://secret:p%40ss@h/ p@ss", secrets) == "http://${B}:${C}@h/ ${C}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://user:pass@h:554/x", "rtsp://user:***@h:554/x"),
        ("rtsp://user:${PW}@h/x", "rtsp://user:${PW}@h/x"),
        ("rtsp://user:a${PW}@h/x", "rtsp://user:***@h/x"),
        ("rtsp://${credential:u}:${credential:p}@h/x", "rtsp://${credential:u}:${credential:p}@h/x"),
        ("http://token@h/x", "http://***@h/x"),
        ("http://h/x?key=abc&t=${T}&bare", "http://h/x?key=***&t=${T}&***"),
        ("udp://@:5000", "udp://@:5000"),
        ("rtsp://user:@h", "rtsp://user:@h"),
        ("https://h/live.m3u8", "https://h/live.m3u8"),
        ("${URL}", "${URL}"),
        ("rtsp://admin:2024#cam@h/stream", "rtsp://..."),
        ("rtsp://admin:1234/x@h/stream", "rtsp://..."),
        ("rtsp://admin:1234?x@h/stream", "rtsp://..."),
        ("rtsp://admin:p@ss/word@h/stream", "rtsp://..."),
    ],
)
def test_passwords_that_are_written_out_are_masked(url: str, shown: str) -> None:
    """A masked URL keeps its form and its references."""
    assert masked(url) == shown
