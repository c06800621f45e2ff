"""Changes of inputs: the same generator gives the same change, and no change is empty."""

import json
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import mutations, targets


@pytest.mark.parametrize("name", targets.NAMES)
def test_the_same_generator_gives_the_same_input(tmp_path: Path, name: str) -> None:
    """An input depends on nothing but its origin and the generator's seed."""
    target = targets.load(name)
    seeds = target.make_seeds(tmp_path)
    for number in range(50):
        first, second = (target.mutate(seeds[number % len(seeds)], Random(number), seeds) for _ in range(2))
        assert first == second


@pytest.mark.parametrize("name", targets.NAMES)
def test_damaged_inputs_can_be_damaged_again(tmp_path: Path, name: str) -> None:
    """A change takes any bytes, because an input with a new outcome is changed further."""
    target, rng = targets.load(name), Random(3)
    inputs = target.make_seeds(tmp_path)
    for _ in range(300):
        short = [each for each in inputs if len(each) < 20_000]
        inputs.append(target.mutate(rng.choice(short), rng, inputs))


def test_bytes_are_damaged() -> None:
    """Most changes give other bytes, and none gives nothing."""
    data = bytes(range(200))
    damaged = [mutations.damage(data, Random(number), [data[::-1]]) for number in range(200)]
    assert all(damaged)
    assert sum(each == data for each in damaged) < 10


def test_nested_values_are_damaged_in_place() -> None:
    """A change reaches inner values, and leaves the original as it is."""
    value: dict[str, object] = {"a": [1, {"b": "text"}], "c": {"d": [True]}}
    before = json.dumps(value)
    damaged = {json.dumps(mutations.damage_value(value, Random(number))) for number in range(100)}
    assert len(damaged) > 50
    assert json.dumps(value) == before
