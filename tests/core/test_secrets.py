"""Secrets: where they are looked up, how they get into a URL, and that they come out of no text."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.core.errors import ConfigError
from perceiverd.core.secrets import filled, look_up, masked, redacted, references

VALUES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


def test_references_are_found() -> None:
    """A text's references are listed by name, in order; other dollars are none."""
    assert references("rtsp://${USER_1}:${credential:cam-1.pw}@h/$x?y=$1") == ("USER_1", "credential:cam-1.pw")


@pytest.mark.parametrize("text", ["${}", "${1A}", "${A", "${A-B}", "${credential:}", "${credential:../x}", "${file:x}"])
def test_what_begins_like_a_reference_is_one(text: str) -> None:
    """A slip in a reference is an error, never a password that is sent as it stands."""
    with pytest.raises(ValueError, match="begins"):
        references(text)


def test_a_variable_is_looked_up_where_it_is_told() -> None:
    """The environment is given; a name that is missing or empty is told by name."""
    assert look_up("A", {"A": " x "}) == " x "
    for environment, why in (({}, "is not set"), ({"A": ""}, "is empty"), ({"A": "x" * 5000}, "more than a URL can")):
        with pytest.raises(ConfigError, match=f"environment variable A .*{why}"):
            look_up("A", environment)


def test_a_credential_is_a_file_of_systemds(tmp_path: Path) -> None:
    """A credential is read from the unit's folder, without the line break at its end."""
    (tmp_path / "cam").write_text("s3 cret\n")
    (tmp_path / "none").write_text("\n")
    (tmp_path / "raw").write_bytes(b"\xff\xfe")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert look_up("credential:cam", environment) == "s3 cret"
    for name, why in (("none", "is empty"), ("raw", "not UTF-8"), ("no", "No such file.*LoadCredential=no:FILE")):
        with pytest.raises(ConfigError, match=f"credential {name}.*{why}"):
            look_up(f"credential:{name}", environment)
    with pytest.raises(ConfigError, match="for a systemd unit with LoadCredential=cam:FILE"):
        look_up("credential:cam", {})


@given(VALUES, VALUES, VALUES)
def test_any_password_fits_into_a_url(user: str, password: str, token: str) -> None:
    """User, password and a value of the query arrive as they are, whatever they hold, and leave the rest alone."""
    url = filled(
        "rtsp://${U}:${credential:p}@camera.example:554/a@b?t=${T}", {"U": user, "credential:p": password, "T": token}
    )
    parts = urlsplit(url)
    assert (parts.hostname, parts.port, parts.path) == ("camera.example", 554, "/a@b")
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == (user, password)
    assert unquote(parts.query.removeprefix("t=")) == token


def test_host_path_and_the_whole_are_taken_as_they_are() -> None:
    """What may have marks of its own is not encoded."""
    assert filled("rtmp://${H}/live/${K}", {"H": "h:1935", "K": "a%20b/c"}) == "rtmp://h:1935/live/a%20b/c"
    assert filled("${URL}", {"URL": "http://u:p@h/x?y"}) == "http://u:p@h/x?y"
    with pytest.raises(KeyError):
        filled("http://${H}/", {})


@given(st.lists(st.text("abc%é ?", min_size=1), min_size=1, max_size=3), st.text("xyz:/@"))
def test_no_secret_is_left_in_a_text(values: list[str], around: str) -> None:
    """Wherever secrets stand in a text, encoded or not, their references stand in their place."""
    secrets = {f"CAM_{i}": value for i, value in enumerate(values)}
    url = filled("rtsp://x:${CAM_0}@h/${CAM_0}", secrets)
    for text in (around + around.join(values) + around, url):
        assert not any(value in redacted(text, secrets) for value in values)


def test_a_redacted_text_says_what_is_missing() -> None:
    """The longest secret is taken out first, and the reader sees which one it was."""
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
    """What a configuration shows of a URL keeps its form and its references."""
    assert masked(url) == shown
