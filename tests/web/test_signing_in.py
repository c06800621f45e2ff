"""Passwords, sessions and the limit of attempts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from perceiverd.cli.app import app
from perceiverd.core.errors import ConfigError
from perceiverd.web import rates, sessions
from perceiverd.web.passwords import PasswordHash
from perceiverd.web.rates import LoginLimit, network_of
from perceiverd.web.sessions import Sessions, cookie, token_of

QUICK = PasswordHash(b"s" * 16, hashlib.scrypt(b"hunter22", salt=b"s" * 16, n=2, r=8, p=1), cost=2)


def test_a_password_is_stored_as_its_hash(tmp_path: Path) -> None:
    """The command reads a line; only the owner can read the file, which has no password in it."""
    path = tmp_path / "password"
    done = CliRunner().invoke(app, ["web", "password", str(path)], input="correct horse\n")
    assert (done.exit_code, "written" in done.stdout) == (0, True)
    assert path.stat().st_mode & 0o037 == 0
    assert "horse" not in path.read_text()
    found = PasswordHash.read(path)
    assert found.matches("correct horse") and not found.matches("correct horsf") and not found.matches("")
    assert hashlib.scrypt(b"correct horse", salt=found.salt, n=1 << 17, r=8, p=1, maxmem=1 << 28) == found.digest


def test_short_passwords_are_refused(tmp_path: Path) -> None:
    """Nothing is written."""
    with pytest.raises(ConfigError, match="a password has 8 to 1024 characters, not 7"):
        PasswordHash.of("1234567")


@pytest.mark.parametrize(
    "text",
    ["", "password", "scrypt$0$8$1$" + "0" * 32 + "$" + "0" * 128, "scrypt$99999999$8$1$" + "0" * 32 + "$" + "0" * 128],
)
def test_a_file_that_is_no_hash_is_one_line(tmp_path: Path, text: str) -> None:
    """It says which command writes one; parameters that would take all memory are refused."""
    path = tmp_path / "password"
    path.write_text(text)
    with pytest.raises(ConfigError, match="run `perceiverd web password"):
        PasswordHash.read(path)


@given(st.text(max_size=50))
def test_only_the_password_matches(guess: str) -> None:
    """Whatever is given, also half a surrogate pair."""
    assert QUICK.matches(guess) == (guess == "hunter22")
    assert not QUICK.matches("\ud800")


def test_sessions_begin_and_end() -> None:
    """A token is valid until it is ended or too old; other tokens never are."""
    made = Sessions(lasts_s=100)
    token, other = made.begin(0), made.begin(0)
    assert made.has(token, 99) and not made.has(token + "x", 99) and not made.has("", 99)
    made.end(token)
    assert not made.has(token, 99) and made.has(other, 99)
    assert not made.has(other, 100)
    for _ in range(sessions.MOST_SESSIONS + 5):
        made.begin(0)
    assert len(made) == sessions.MOST_SESSIONS


def test_the_token_of_a_page_belongs_to_its_session() -> None:
    """Another session's is refused, and so is none."""
    made = Sessions(lasts_s=100)
    one, other = made.begin(0), made.begin(0)
    assert made.is_csrf(one, made.csrf(one))
    assert not made.is_csrf(one, made.csrf(other)) and not made.is_csrf("", made.csrf(""))
    assert not Sessions(100).is_csrf(one, made.csrf(one))


@given(st.text(max_size=200))
def test_cookies_of_any_form(text: str) -> None:
    """A header either has a token of the right form or none."""
    assert token_of(text) == "" or len(token_of(text)) == sessions.TOKEN_LETTERS


def test_the_cookie_comes_back() -> None:
    """What is set is what is read, among other cookies."""
    token = sessions.new_token()
    made = cookie(token, "/ears", 60, "https")
    assert made == f"perceiverd_session={token}; Path=/ears; HttpOnly; SameSite=Strict; Max-Age=60; Secure"
    assert token_of(f"a=b; {made.partition(';')[0]}; c=d") == token


def test_attempts_are_limited_by_address() -> None:
    """Five at once, then one in 30 s; others are not affected; a right password gives its attempt back."""
    limit = LoginLimit()
    assert [limit.begin("192.0.2.1", 100) for _ in range(6)] == [0] * 5 + [30]
    assert limit.begin("192.0.2.2", 100) == 0
    assert limit.begin("192.0.2.1", 129) == pytest.approx(1)
    assert limit.begin("192.0.2.1", 131) == 0
    for _ in range(20):
        assert limit.begin("192.0.2.3", 131) == 0
        limit.succeeded("192.0.2.3")


def test_attempts_of_many_addresses_are_limited_together() -> None:
    """An attacker with many addresses gets no more than the common limit, and memory is bounded."""
    limit = LoginLimit()
    allowed = sum(limit.begin(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", 100) == 0 for i in range(6000))
    assert allowed == rates.ALL_BURST
    assert len(limit._each) == rates.MOST_ADDRESSES


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("nonsense", "unknown"),
        ("", "unknown"),
    ],
)
def test_what_counts_as_one_address(address: str, network: str) -> None:
    """An address of IPv4, or a household's network of IPv6."""
    assert network_of(address) == network
