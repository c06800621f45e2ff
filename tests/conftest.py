"""Fixtures of several test modules: a model that is built in a moment, and ways to run the real program."""

import logging
import os
import signal
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from perceiverd.core.labels import ontology
from perceiverd.model.geometry import Audio, Geometry, Trunk, Video
from tests.support.devices import has_gpu
from tests.support.program import Perceiverd, Start

# On a busy machine an example may take any time. In CI the examples are the same in each run: there a rare
# counterexample would refuse a change that has nothing to do with it. Everywhere else each run has new ones.
IN_CI = bool(os.environ.get("CI"))
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.load_profile("ci" if IN_CI else "no deadline")
# As the command line does, for the same reason: on a busy machine, threads that spin wait a hundred times longer.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Without a GPU, Triton's kernels run in its interpreter. Triton reads this when it is imported.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
# Some tests need tools for networks and file systems. Only root's PATH has their folders.
os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
# A shell starts background processes with SIGINT ignored, and programs under test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start long tests first: the others fill the time while they wait. Skip tests for a GPU if there is none."""
    if any(item.get_closest_marker("gpu") for item in items) and not has_gpu():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU, and torch finds none"))
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def no_log_to_closed_output() -> Iterator[None]:
    """Remove log handlers of commands that ran in this process: the output of a finished test is closed."""
    root = logging.getLogger()
    level, before = root.level, list(root.handlers)
    yield
    for handler in root.handlers:
        if type(handler) is logging.StreamHandler and handler not in before:
            root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with an untrained Perceiver: 0.5 s of audio at 16 kHz, 4 frames of 16 by 24 pixels."""
    import torch

    from perceiverd.model.checkpoint import save_model
    from perceiverd.model.perceiver import Perceiver

    geometry = Geometry(
        classes=527,
        trunk=Trunk(latents=4, width=16, cross_attends=1, layers=1, heads=2),
        audio=Audio(rate_hz=16_000, samples=8_000, form="raw", patch=(160,), bands=2),
        video=Video(frames=4, fps=8.0, height=16, width=24, patch=(1, 8, 8), bands=2),
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
    save_model(folder, network, geometry, ontology().labels, name="tiny", licence="CC0-1.0")
    return folder


@pytest.fixture
def wav(tmp_path: Path) -> Callable[[float], Path]:
    """A function that writes an audio file of this many seconds."""

    def write(seconds: float) -> Path:
        path = tmp_path / f"{seconds:g}.wav"
        noise = np.random.default_rng(0).integers(-9000, 9000, round(16_000 * seconds), dtype=np.int16)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(noise.tobytes())
        return path

    return write


PROGRAM = (sys.executable, "-m", "perceiverd")


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Starts `perceiverd ARGUMENTS`, or another program, as a process; kills what still runs after the module."""
    started: list[subprocess.Popen[str]] = []

    def popen(
        *arguments: str, log: Path, program: Sequence[str] = PROGRAM, **environment: str
    ) -> subprocess.Popen[str]:
        with log.open("w") as output:
            process = subprocess.Popen(
                [*program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
                text=True,
            )
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def perceiverd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Perceiverd:
    """A function that runs the command line in this process: exit status, standard output, standard error."""
    from perceiverd.cli import main

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["perceiverd", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert exit_.value.code is None or isinstance(exit_.value.code, int)
        return exit_.value.code or 0, *capsys.readouterr()

    return call
