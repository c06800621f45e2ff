"""Damages bytes, lines and nested values. Pure: all chance comes from the generator that the caller passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

Value = object
"""A nested value: dicts with string keys, lists and leaves."""
Damage = Callable[[bytearray, Random, Sequence[bytes]], None]

HEADER_BYTES = 1024
LONGEST_BLOCK = 4096
EXTREMES = tuple(
    bytes([fill]) * size if fill in (0, 0xFF) else bytes([fill]) + bytes([0xFF if fill == 0x7F else 0]) * (size - 1)
    for fill in (0, 0xFF, 0x7F, 0x80)
    for size in (1, 2, 4, 8)
)
"""What a field of a header is overwritten with: 0, -1, and the largest and smallest signed numbers."""
HOSTILE_TEXTS = (
    "", " ", "\0", "\x1b[31m", "\n", "\r\n", "'", '"', "`", "$", "${", "${A}", "${credential:A}", "%", "%zz", "/", "..",
    "~", "://", "http://[", "rtsp://a:b@c:d/", "tcp://*:*", "ipc://", "hw:0", "cuda:99999999999999999999", "nan", "-0",
    "\u202e", "\U0001f42c", "é" * 50, "a" * 5_000, "a.b", "[", "]", "[0]", "0" * 5_000, "auto", "file", "url", "x\x85y",
)  # fmt: skip
HOSTILE_NUMBERS = (
    0, 1, -1, 2, 127, 255, 65_535, 65_536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**64),
    10**30, 0.0, -0.0, 0.1, 1e-300, 5e-324, 1e300, -1e300, 1.7976931348623157e308,
)  # fmt: skip


def damage(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Flip, cut, swap, insert, repeat and overwrite, one to six times."""
    damaged = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        rng.choice(DAMAGES)(damaged, rng, others)
        damaged = damaged or bytearray(b"\0")
    return bytes(damaged)


def _block(data: bytearray, rng: Random) -> slice:
    start = rng.randrange(len(data))
    return slice(start, start + 1 + int(rng.random() ** 3 * min(LONGEST_BLOCK, len(data) - start)))


def flip_bits(data: bytearray, rng: Random, others: Sequence[bytes]) -> None:
    """Flip one to 64 bits."""
    for _ in range(1 << rng.randrange(7)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut_end(data: bytearray, rng: Random, others: Sequence[bytes]) -> None:
    """Cut the end off."""
    del data[rng.randrange(len(data)) :]


def cut_block(data: bytearray, rng: Random, others: Sequence[bytes]) -> None:
    """Remove a block."""
    del data[_block(data, rng)]


def swap_blocks(data: bytearray, rng: Random, others: Sequence[bytes]) -> None:
    """Exchange two blocks of the same length."""
    length = 1 + rng.randrange(max(1, min(LONGEST_BLOCK, len(data) // 2)))
    first, second = sorted(rng.randrange(len(data) - length + 1) for _ in range(2))
    if second - first >= length:
        one, other = data[first : first + length], data[second : second + length]
        data[first : first + length], data[second : second + length] = other, one


def insert_noise(data: bytearray, rng: Random, others: Sequence[bytes]) -> None:
    """Insert a block of random bytes."""
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(1 << rng.randrange(11))


def repeat_block(data: bytearray, rng: Random, others: Sequence[bytes]) -> None:
    """Insert a block of the same data again, there or elsewhere."""
    block = data[_block(data, rng)]
    at = rng.randrange(len(data) + 1)
    data[at:at] = block * rng.choice((1, 1, 2, 8))


def borrow_block(data: bytearray, rng: Random, others: Sequence[bytes]) -> None:
    """Insert a block of another input."""
    other = bytearray(rng.choice(others)) if others else data
    at = rng.randrange(len(data) + 1)
    data[at:at] = other[_block(other, rng)] if other else b""


def damage_header(data: bytearray, rng: Random, others: Sequence[bytes]) -> None:
    """Overwrite a field in the first bytes with noise or with an extreme number."""
    at = rng.randrange(min(HEADER_BYTES, len(data)))
    field = rng.choice(EXTREMES) if rng.random() < 0.7 else rng.randbytes(4)
    data[at : at + len(field)] = field


def damage_number(data: bytearray, rng: Random, others: Sequence[bytes]) -> None:
    """Overwrite a field anywhere with an extreme number."""
    at = rng.randrange(len(data))
    field = rng.choice(EXTREMES)
    data[at : at + len(field)] = field


DAMAGES: tuple[Damage, ...] = (
    flip_bits, cut_end, cut_block, swap_blocks, insert_noise, repeat_block, borrow_block, damage_header, damage_number
)  # fmt: skip


def damage_lines(
    text: bytes, rng: Random, others: Sequence[bytes], replaced: Callable[[bytes, Random], bytes]
) -> bytes:
    """Delete, repeat, swap, borrow and replace whole lines; `replaced` gives a damaged line."""
    lines = text.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(lines))
        match rng.randrange(6):
            case 0 if len(lines) > 1:
                del lines[at]
            case 1:
                lines[at:at] = lines[at : at + 1 + rng.randrange(5)]
            case 2:
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case 3 if others:
                lines.insert(at, rng.choice(rng.choice(others).split(b"\n")))
            case _:
                lines[at] = replaced(lines[at], rng)
    return b"\n".join(lines)


def damage_value(value: Value, rng: Random) -> Value:
    """A copy of a nested value with one place damaged: removed, renamed, copied elsewhere, or of another type."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        return _damaged_table(dict(value), key, rng)
    if isinstance(value, list) and value and rng.random() < 0.8:
        items, at = list(value), rng.randrange(len(value))
        match rng.randrange(8):
            case 0:
                del items[at]
            case 1:
                items[at:at] = [items[at]] * rng.choice((1, 2, 50))
            case _:
                items[at] = damage_value(items[at], rng)
        return items
    return hostile_value(value, rng)


def _damaged_table(table: dict[str, Value], key: str, rng: Random) -> Value:
    match rng.randrange(10):
        case 0:
            del table[key]
        case 1:
            table[misspelled(key, rng)] = table.pop(key)
        case 2:
            table[misspelled(key, rng)] = table[key]
        case 3:
            table[rng.choice(HOSTILE_TEXTS)] = table[key]
        case 4:
            table[key] = table[rng.choice(sorted(table))]
        case _:
            table[key] = damage_value(table[key], rng)
    return table


def hostile_value(value: Value, rng: Random) -> Value:
    """Another leaf or a small nested value in place of this one."""
    if isinstance(value, int | float) and rng.random() < 0.4:
        return _near(value, rng)
    match rng.randrange(8):
        case 0 | 1:
            return rng.choice(HOSTILE_NUMBERS)
        case 2 | 3:
            return rng.choice(HOSTILE_TEXTS)
        case 4:
            return rng.random() < 0.5
        case 5:
            return [] if rng.random() < 0.5 else [value]
        case 6:
            return {} if rng.random() < 0.5 else {"a": value}
        case _:
            return misspelled(value, rng) if isinstance(value, str) and value else value


def _near(number: int | float, rng: Random) -> int | float:
    """A number that may still be allowed."""
    if not -1e15 < number < 1e15:  # infinities, NaN, and integers that no float holds
        return 1
    return rng.choice((number + 1, number - 1, number * 2, number / 2, -number, float(number), round(number)))


def misspelled(word: str, rng: Random) -> str:
    """The word with a letter changed, added or removed."""
    at = rng.randrange(len(word) + 1)
    return word[:at] + rng.choice(("", "x", "_", "é", word[at : at + 1] * 2)) + word[at + 1 :]
