"""Which large libraries each entry module loads, in a fresh interpreter; and that the package is marked as typed."""

import subprocess
import sys
from importlib.resources import files

import pytest

LIBRARIES = {"av", "cv2", "numpy", "onnx", "onnxruntime", "rich", "torch", "zmq"}
LOADED = {
    "perceiverd": set(),  # `from perceiverd import tag` loads the rest
    "perceiverd.wire": set(),  # the public API; `subscribe` comes from the next one
    "perceiverd.wire.client": {"zmq"},
    "perceiverd.cli.app": set(),  # `--help` answers at once; each command imports what it needs
    "perceiverd.config": {"numpy"},
    "perceiverd.sources": set(),
    "perceiverd.sources.process.worker": {"numpy", "zmq"},  # the kind of source loads av or cv2 when it opens
    "perceiverd.daemon.daemon": {
        "numpy",
        "zmq",
    },  # the engine comes with the model, after the configuration is checked
    "perceiverd.offline.tag": {"numpy"},
    "perceiverd.pipeline.windower": {"numpy"},
    "perceiverd.mqtt.bridge": {"zmq"},
    "perceiverd.history": set(),  # what reads the store
    "perceiverd.history.service": {"numpy", "zmq"},
    "perceiverd.web": set(),
    "perceiverd.web.service": {"av", "numpy", "zmq"},  # corrections cut sound
    "perceiverd.model.card": {"numpy"},
    "perceiverd.model.engine_choice": {"numpy"},
    "perceiverd.model.export": {"numpy"},
    "perceiverd.model.onnx_engine": {"numpy", "onnxruntime"},
    "perceiverd.pipeline.tagger": {"numpy"},
}


@pytest.mark.parametrize("module", LOADED)
def test_an_entry_module_loads_only_what_it_needs(module: str) -> None:
    """Importing it loads exactly these large libraries."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert LIBRARIES & set(done.stdout.split()) == LOADED[module]


def test_the_package_is_typed() -> None:
    """Type checkers read the package's types only if it has this marker (PEP 561)."""
    assert (files("perceiverd") / "py.typed").is_file()
