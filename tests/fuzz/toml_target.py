"""Configurations: `config.load`, and what `config show` and `config check` do with the result."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random

import tomli_w

from perceiverd import config
from perceiverd.core.errors import ConfigError
from perceiverd.daemon import snapshots
from perceiverd.model.card import DEFAULT, Card, load_card
from perceiverd.pipeline.rules import resolve
from perceiverd.wire import keys
from tests.fuzz import mutations
from tests.fuzz.target import ROOT, Target, named

LITERALS = (
    b"nan", b"-inf", b"+0", b"0x", b"0xffffffffffffffffffff", b"1_000", b"1e400", b"9" * 5000, b"1979-05-27T07:32:00Z",
    b"1979-99-27", b"24:00:00", b"0000-01-01", b"true", b"[]", b"{}", b'"\\uD800"', b'"\\U0010FFFF"', b'"\\u0000"',
    b"'''", b'"""a\n"""', b"[[1], ['a']]", b"{a = {b = {}}}", b"[" * 2000, b"{a=" * 800, b"\xff", b"\xef\xbb\xbf", b"",
)  # fmt: skip
STREAMS = b"""
[snapshots]
on_event = true
directory = "snapshots"
[streams.a]
sources = [{ kind = "camera", device = "/dev/video0" }, { kind = "microphone", channel = 1 }]
[streams.b.events]
on = 0.5
off = 0.1
labels = { Dog = { on = 0.9 }, "/m/09x0r" = { subsume = false } }
[[streams.b.sources]]
kind = "url"
url = "rtsp://u:${PASSWORD}@h:554/x?y=z"
[metrics]
endpoint = "127.0.0.1:0"
[publish]
endpoint = "tcp://0.0.0.0:5"
secret_key = "a"
client_keys = "b"
"""
SECRETS = {"PASSWORD": "p", "DOOR_PASSWORD": "p@/:%\n"}


def make_seeds(folder: Path) -> list[bytes]:
    """The examples, the annotated one with all its options switched on, and a few short ones."""
    examples = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.toml")) if "train" not in path.name]
    full = re.sub(rb"^# (?=\[|[a-z_]+ = )", b"", (ROOT / "configs/perceiverd.toml").read_bytes(), flags=re.MULTILINE)
    short = re.sub(rb"^#.*\n|^\n", b"", full, flags=re.MULTILINE)
    sections = [b"[" + part for part in re.split(rb"^\[(?=[a-z])", short, flags=re.MULTILINE)[1:]]
    return [*examples, short, STREAMS, *sections]


def mutate(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Damage the values, the lines or the bytes."""
    way = rng.random()
    if way < 0.4:
        return mutations.damage_lines(data, rng, others, _damaged_line)
    if way < 0.8:
        try:
            table = tomllib.loads(data.decode())
            for _ in range(rng.choice((1, 1, 2, 4))):
                damaged = mutations.damage_value(table, rng)
                table = damaged if isinstance(damaged, dict) else table
            return tomli_w.dumps(table).encode()
        except (ValueError, RecursionError):
            pass
    return mutations.damage(data, rng, others)


def _damaged_line(line: bytes, rng: Random) -> bytes:
    key, sign, value = line.partition(b"=")
    if sign:
        match rng.randrange(4):
            case 0:
                return b"%s=[%s]" % (key, value)
            case 1:
                return mutations.misspelled(key.decode(errors="replace"), rng).encode() + sign + value
            case _:
                return key + b"= " + rng.choice(LITERALS)
    return rng.choice((b"[" + line + b"]", line.strip(b"[]"), line.replace(b".", b".."), b"a.b.c = 1", b"[a", b"]"))


@cache
def _bundled() -> Card:
    return load_card(DEFAULT)


def run(data: bytes, folder: Path) -> str:
    """Load it, show it, fill in its secrets, find its model and resolve its rules, as `config check` does.

    An error of `load` begins with the file's name.
    """
    path = folder / "c.toml"
    path.write_bytes(data)
    try:
        settings = config.load(path)
    except ConfigError as error:
        raise named(error, path) from error
    shown = tomli_w.dumps(config.table(settings, defaults=True))
    tomllib.loads(shown)
    config.secrets_of(settings, SECRETS)
    load_card(settings.model.name)
    card = _bundled()
    for name, stream in settings.streams.items():
        resolve(card.labels, card.calibration, settings.events, stream.events, name)
    _look_outside(settings)
    kinds = sorted({type(source).__name__ for stream in settings.streams.values() for source in stream.sources})
    return f"loaded {' '.join(kinds)}"


def _look_outside(settings: config.Config) -> None:
    """Look for the files that a configuration names; only ConfigError may say that they are missing."""
    with suppress(ConfigError):
        snapshots.check(settings, {})
    if settings.publish.secret_key and settings.publish.client_keys:
        with suppress(ConfigError):
            keys.read_pair(Path(settings.publish.secret_key))
        with suppress(ConfigError):
            keys.AllowList(Path(settings.publish.client_keys))


TARGET = Target("toml", make_seeds, mutate, run)
