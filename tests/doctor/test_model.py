"""The check of the model, with models that work and models that are broken."""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from perceiverd.config import Config, ModelConfig, StreamConfig, WindowConfig
from perceiverd.doctor import model
from perceiverd.model.cuda.driver import Driver
from perceiverd.sources.specs import Synthetic


def test_a_model_that_works_is_timed(tiny_model: Path) -> None:
    """There is one finding each for the GPU, the model and the number of streams it can serve."""
    gpu, loaded, speed = model.check(Config(model=ModelConfig(str(tiny_model), threads=1)))
    assert (gpu.check, loaded.check, speed.check) == ("gpu", "model", "speed")
    assert (loaded.verdict, speed.verdict) == ("ok", "ok")
    assert "streams" in speed.what


def test_torch_stays_out_if_there_is_no_gpu(tiny_model: Path) -> None:
    """Without a GPU's driver, neither the search for a GPU nor the model loads PyTorch."""
    if Driver.found().is_loaded:
        pytest.skip("this machine has a GPU's driver")
    code = (
        "import sys; from perceiverd.config import Config, ModelConfig; from perceiverd.doctor import model; "
        f"found = [*model.check(Config(model=ModelConfig({str(tiny_model)!r})))]; "
        "print(found[0].what, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.endswith("runs on the CPU False\n")


def test_too_many_streams_are_a_warning() -> None:
    """If the hop is too short for the streams, the advice names a hop that is long enough."""
    many = {str(i): StreamConfig((Synthetic(),)) for i in range(50)}
    settings = Config(window=WindowConfig(hop_s=0.5), streams=many)
    finding = model.speed(settings, one_s=0.1, many_s=0.4)
    assert (finding.check, finding.verdict) == ("speed", "warning")
    assert "can serve about 4 streams, but 50 are enabled" in finding.what
    assert finding.do.startswith("set window.hop_s = 6.3, ")  # (0.1 + 49 * 0.1) / 0.8, rounded up
    assert model.speed(msgspec.structs.replace(settings, window=WindowConfig(hop_s=6.3)), 0.1, 0.4).verdict == "ok"


@pytest.mark.parametrize(
    ("one_s", "many_s", "hop_s", "count"),
    [(0.1, 0.4, 0.5, 4), (0.1, 0.1, 0.5, 3001), (0.4, 1.6, 0.5, 1), (0.41, 1.6, 0.5, 0), (0.1, 0.25, 0.5, 7)],
)
def test_servable_streams_are_counted(one_s: float, many_s: float, hop_s: float, count: int) -> None:
    """Streams must fit into 0.8 of a hop; the first costs a batch of one, each other one what a batch grows by."""
    assert model.servable(one_s, many_s, hop_s) == count


def test_broken_models_are_faults(tiny_model: Path, tmp_path: Path) -> None:
    """A missing model, weights with another sha256, and a GPU that does not exist are faults."""
    (missing,) = model.check(Config(model=ModelConfig(str(tmp_path / "none"))))
    assert missing.verdict == "fault"
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    _, found = model.check(Config(model=ModelConfig(str(broken))))
    assert found.verdict == "fault"
    assert "sha256" in found.what
    _, found = model.check(Config(model=ModelConfig(str(tiny_model), device="cuda:99")))
    assert found.verdict == "fault"
    assert "cuda:99" in found.what
    assert found.do


@pytest.mark.parametrize(("files", "verdict"), [((), "ok"), (("vendor", "class"), "warning")])
def test_a_container_without_a_gpu_is_no_warning(
    files: tuple[str, ...], verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container lacks the driver only if the machine has an NVIDIA card; then the advice names `--gpus all`."""
    card = tmp_path / "sys/bus/pci/devices/0"
    card.mkdir(parents=True)
    (tmp_path / ".dockerenv").touch()
    for file in files:
        (card / file).write_text({"vendor": "0x10de", "class": "0x030000"}[file])
    found = Driver.found(tmp_path)
    monkeypatch.setattr(Driver, "found", lambda: found)
    finding = model._gpu("auto")
    assert finding.verdict == verdict and ("--gpus all" in finding.do) == (verdict == "warning")
