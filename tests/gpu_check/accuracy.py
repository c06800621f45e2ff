"""Scores on the device beside those of the CPU in float32: on noise, on the bundled clip, and on changed copies of it.

The repository has no labelled recordings. So the precision is that of agreement: a label is true in a window if it is
among the CPU's five best there. With `--manifest`, `perceiverd eval` measures the precision on labelled recordings.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiverd.bench import gpu
from perceiverd.core.media import NS_PER_S
from perceiverd.core.paths import shipped_config
from perceiverd.model.card import Card
from perceiverd.model.cuda.devices import gpu_of
from perceiverd.model.cuda.engine import CudaEngine
from perceiverd.model.engine import Precision, WindowMedia
from perceiverd.model.mixed_batches import grouped_logits
from perceiverd.model.torch_engine import TorchEngine
from perceiverd.offline import tag
from perceiverd.offline.decoding import Decoder
from tests.gpu_check.result import Check, Result, Setup

EXACT, CLOSE = 1e-4, 0.02
"""How far scores may be from the CPU's: in float32, and in half precision."""
PRECISION_LOSS = 0.002
"""How much mean average precision half precision may cost."""
BEST = 5
"""Labels of a window that count as true."""
CLIP_WINDOWS = 16
"""Windows of the clip that are changed and compared; the CPU needs some 50 ms for each."""

Floats = NDArray[np.float64]


def agreement(setup: Setup) -> Result:
    """Scores of each precision, beside those of the CPU in float32."""
    card = setup.card
    noise, seen = mixed(gpu.noise_windows(card.geometry, 12)), list(clip_windows(card))
    windows = [*noise, *seen]
    exact = sigmoid(grouped_logits(TorchEngine(card, "cpu"), windows))
    precisions: list[Precision] = ["float32"]
    if setup.is_gpu:
        precisions += ["bfloat16", "float16"] if gpu_of(setup.device).precision == "bfloat16" else ["float16"]
    else:
        precisions += ["bfloat16"]
    checks, numbers = [], dict[str, Any]()
    for precision in precisions:
        engine = CudaEngine(card, setup.device, precision, setup.sizes)
        parts = [windows[at : at + engine.max_batch] for at in range(0, len(windows), engine.max_batch)]
        found = sigmoid(np.concatenate([engine.submit(part).logits() for part in parts]))
        numbers[precision] = measures(found, exact, len(noise)) | {"reader": engine.reader}
        del engine
        checks += list(_checks(setup, precision, numbers[precision]))
    if setup.manifest:
        checks.append(_held_out(setup))
    summary = "; ".join(check.found for check in checks)
    return Result("agreement", summary, checks, numbers)


def measures(found: Floats, exact: Floats, noise: int) -> dict[str, float]:
    """How far scores (windows, labels) are from the exact ones; the first `noise` windows are noise."""
    own, wanted = found[noise:], exact[noise:]
    best, wanted_best = (np.argsort(-each, axis=1)[:, :BEST] for each in (own, wanted))
    truth = np.zeros(wanted.shape, bool)
    np.put_along_axis(truth, wanted_best, True, axis=1)
    return {
        "most": float(np.abs(found - exact).max()),
        "top_1": float((best[:, 0] == wanted_best[:, 0]).mean()),
        "top_5": float(np.take_along_axis(truth, best, axis=1).mean()),
        "precision": mean_average_precision(own, truth),
        "precision_of_cpu": mean_average_precision(wanted, truth),
    }


def mean_average_precision(scores: Floats, truth: NDArray[np.bool_]) -> float:
    """Over the labels that some window has and another lacks; of equal scores, the window that came first is first."""
    found = []
    for own, true in zip(scores.T, truth.T, strict=True):
        if true.any() and not true.all():
            ranked = true[np.argsort(-own, kind="stable")]
            found.append(float((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean()))
    return float(np.mean(found)) if found else 1.0


def _checks(setup: Setup, precision: Precision, found: dict[str, float]) -> Iterator[Check]:
    bound = EXACT if precision == "float32" else CLOSE
    most = f"{precision}: at most {found['most']:.1e}"
    yield Check(f"scores in {precision} are within {bound:g} of the CPU's", found["most"] < bound, most)
    if precision == "float32":
        return
    loss = found["precision_of_cpu"] - found["precision"]
    text = f"{precision}: {loss:+.4f}, best label equal in {found['top_1']:.1%}, five best in {found['top_5']:.1%}"
    what = f"{precision} costs at most {PRECISION_LOSS} of the agreement's mean average precision"
    yield setup.check(what, loss <= PRECISION_LOSS, text)


def _held_out(setup: Setup) -> Check:
    """The precision on labelled recordings, by `perceiverd eval` on both devices."""
    found = []
    with tempfile.TemporaryDirectory(prefix="perceiverd-gpu-") as folder:
        for device in ("cpu", str(setup.device)):
            file = Path(folder) / "eval.json"
            command = [sys.executable, "-m", "perceiverd", "eval", setup.manifest, "--model", setup.model]
            command += ["--device", device, "--engine", "torch", "--draws", "10", "--skip", "1", "--json", str(file)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=setup.limit_s)
            found.append(float(json.loads(file.read_text())["models"][0]["measures"]["mAP"]["value"]))
    loss = found[0] - found[1]
    what = f"on {Path(setup.manifest).name} the device costs at most {PRECISION_LOSS} of mean average precision"
    return setup.check(what, loss <= PRECISION_LOSS, f"{found[0]:.4f} on the CPU, {found[1]:.4f} on the device")


def clip_windows(card: Card, most: int = CLIP_WINDOWS) -> Iterator[WindowMedia]:
    """Windows of the bundled clip, then quieter, noisy, mirrored and dark copies of them, and parts of them."""
    clip = shipped_config("demo/clip.mp4")
    assert clip is not None
    geometry, rng = card.geometry, np.random.default_rng(0)
    options = tag.TagOptions(top=1, hop_ns=NS_PER_S // 4, batch=1)
    with Decoder(geometry.media_format) as decoder:
        found = [
            WindowMedia(window.audio, None if window.pictures is None else list(window.pictures))
            for window in tag._windows(str(clip), geometry, options, decoder)
        ]
    for number, window in enumerate(found[:: max(1, len(found) // most)][:most]):
        yield window
        audio, frames = window.audio, window.frames
        if audio is not None:
            noise = rng.normal(0, 0.3 * float(audio.std()) + 1e-4, audio.shape).astype(np.float32)
            audio = 0.1 * audio if number % 2 else audio + noise
        if frames is not None:
            frames = [np.ascontiguousarray(frame[:, ::-1]) if number % 2 else frame // 4 for frame in frames]
        yield WindowMedia(audio, frames)
        if audio is not None and frames is not None:
            yield WindowMedia(window.audio, None) if number % 2 else WindowMedia(None, window.frames)


def mixed(windows: Sequence[WindowMedia]) -> list[WindowMedia]:
    """Every third window without audio, every third without video, if the model has both."""
    if any(window.audio is None or window.frames is None for window in windows):
        return list(windows)
    return [
        WindowMedia(None if row % 3 == 1 else window.audio, None if row % 3 == 2 else window.frames)
        for row, window in enumerate(windows)
    ]


def sigmoid(logits: NDArray[np.float32]) -> Floats:
    """Scores without calibration."""
    found: Floats = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return found
