"""perceiverd: cameras and microphones in, AudioSet labels out, over ZeroMQ. And files: `from perceiverd import tag`."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`tag`, loaded when it is asked for: the command line and clients of the daemon do not need it."""
    if name == "tag":
        from importlib import import_module  # no import statement: no package would be below this one any more

        return import_module("perceiverd.offline.library").tag
    raise AttributeError(f"module 'perceiverd' has no attribute {name!r}")
