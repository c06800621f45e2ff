"""The targets by name. Loads only the one that is asked for: FFmpeg takes seconds to load."""

from importlib import import_module

from tests.fuzz.target import Target

NAMES = ("media", "toml", "wire", "manifest")


def load(name: str) -> Target:
    """The target of this name, one of NAMES."""
    target: object = import_module(f"tests.fuzz.{name}_target").TARGET
    assert isinstance(target, Target)
    return target
