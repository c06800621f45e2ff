"""A teacher as files: a folder with a graph, its labels and its front end. Loading it runs no Python of the folder.

`teacher.toml` names the graph (ONNX, or TorchScript) and says how audio or images become its input. `labels.tsv` has
the AudioSet mids of its scores, in their order; a teacher of embeddings alone needs none.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import soxr
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor

from perceiverd.core.errors import ConfigError, ModelError
from perceiverd.core.labels import ontology

CARD, LABELS = "teacher.toml", "labels.tsv"
OUR_RATE_HZ = 16_000
FAINTEST = 1e-4
"""-80 dB of full scale: a window of silence is not amplified beyond this."""
Size = Annotated[int, Meta(ge=1, le=2**16)]


class Spectrogram(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[spectrogram]`: scale * ln(offset + gain * mel), of frames that a Hann window cuts."""

    rate_hz: Annotated[int, Meta(ge=4000, le=192_000)]
    """Sample rate. Audio of 16 kHz is resampled to it."""
    window: Size
    """Samples of a frame."""
    hop: Size
    """Samples from one frame to the next."""
    fft: Size
    """Points of the Fourier transform, at least `window`."""
    bands: Size
    """Triangles, evenly spread in HTK mel."""
    low_hz: float
    high_hz: float
    power: Literal[1, 2] = 1
    """1: of the magnitude; 2: of its square."""
    unit: Literal["peak", "sum"] = "peak"
    """What is 1 in each triangle: its peak, or the sum of its weights."""
    loudest: bool = False
    """Whether the samples of a window are first divided by the largest one."""
    offset: float = 0.001
    gain: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.fft < self.window or not 0 <= self.low_hz < self.high_hz <= self.rate_hz / 2 or self.offset <= 0:
            raise ValueError("spectrogram: needs fft >= window, 0 <= low_hz < high_hz <= rate_hz / 2, and offset > 0")


class Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[image]`: RGB of 0..1, minus `mean`, divided by `std`, channels first."""

    side: Size
    """Pixels of a square image."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


class TeacherFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`teacher.toml` as it is written. Exactly one of `spectrogram` and `image` is given."""

    name: str
    licence: str
    """SPDX expression for the graph's weights."""
    graph: str = "graph.onnx"
    """File name: .onnx, or .pt for TorchScript."""
    scores: Literal["logits", "probabilities", "none"] = "logits"
    """What the first output is: a number for each label of labels.tsv, or nothing that is used."""
    embedding: Annotated[int, Meta(ge=-1, le=15)] = -1
    """Which output, counted from 0, is an embedding to imitate; -1: none."""
    spectrogram: Spectrogram | None = None
    image: Image | None = None

    def __post_init__(self) -> None:
        if (self.spectrogram is None) == (self.image is None):
            raise ValueError("give [spectrogram] or [image], and not both")
        if Path(self.graph).name != self.graph or Path(self.graph).suffix not in (".onnx", ".pt"):
            raise ValueError(f"graph {self.graph!r}: give the name of an .onnx or .pt file in the folder")
        if self.scores == "none" and self.embedding < 0:
            raise ValueError("a teacher needs scores or an embedding")


@dataclass(frozen=True, eq=False)
class Answer:
    """What a teacher says about a batch."""

    logits: NDArray[np.float32] | None
    """(B, 527), NaN for labels that the teacher lacks."""
    embedding: NDArray[np.float32] | None
    """(B, E)"""


class FileTeacher:
    """A teacher that was read from a folder."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError if the card is wrong, ModelError if the graph cannot be used."""
        self.card = _read_card(folder / CARD)
        self._places = _read_places(folder / LABELS) if self.card.scores != "none" else None
        self._run = _graph(folder / self.card.graph)

    def hear(self, samples: NDArray[np.float32]) -> Answer:
        """The answer to audio (B, samples) of 16 kHz, -1..1."""
        if self.card.spectrogram is None:
            raise ConfigError(f"{self.card.name}: is a teacher for images, not for audio")
        return self._answer(spectrogram(samples, self.card.spectrogram))

    def see(self, images: NDArray[np.uint8]) -> Answer:
        """The answer to RGB images (B, side, side, 3)."""
        form = self.card.image
        if form is None or images.shape[1:] != (form.side, form.side, 3):
            raise ConfigError(f"{self.card.name}: does not take images of {images.shape[1:]}")
        scaled = (images / 255 - np.array(form.mean)) / np.array(form.std)
        return self._answer(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32))

    def _answer(self, batch: NDArray[np.float32]) -> Answer:
        outputs, logits = self._run(batch), None
        if self._places is not None:
            values = np.asarray(outputs[0], np.float32)
            if values.shape != (len(batch), len(self._places)):
                raise ModelError(f"{self.card.name}: gives scores {values.shape} for {len(self._places)} labels")
            if self.card.scores == "probabilities":
                safe = values.clip(1e-6, 1 - 1e-6)
                values = np.log(safe) - np.log1p(-safe)
            logits = np.full((len(batch), len(ontology().labels)), np.nan, np.float32)
            logits[:, self._places] = values
        at = self.card.embedding
        if at >= len(outputs):
            raise ModelError(f"{self.card.name}: the graph has {len(outputs)} outputs, and no number {at}")
        return Answer(logits, np.asarray(outputs[at], np.float32) if at >= 0 else None)


def spectrogram(samples: NDArray[np.float32], form: Spectrogram) -> NDArray[np.float32]:
    """(B, frames, bands) of audio (B, samples) of 16 kHz; frames are evenly spread, and the ends are mirrored."""
    if form.loudest:
        samples = samples / np.abs(samples).max(axis=1, keepdims=True).clip(FAINTEST)
    if form.rate_hz != OUR_RATE_HZ:
        samples = np.stack([soxr.resample(row, OUR_RATE_HZ, form.rate_hz) for row in samples])
    margin = max(0, (form.window - form.hop) // 2)
    padded = torch.from_numpy(np.pad(samples, ((0, 0), (margin, margin)), mode="reflect").astype(np.float32))
    frames = padded.unfold(1, form.window, form.hop) * torch.hann_window(form.window)
    power = torch.fft.rfft(frames, form.fft).abs() ** form.power
    mel = power @ mel_triangles(form)
    found: NDArray[np.float32] = (form.scale * torch.log(form.offset + form.gain * mel)).numpy()
    return found


def mel_triangles(form: Spectrogram) -> Tensor:
    """(FFT bins, bands), linear in HTK mel (1127 ln(1 + f / 700)); see `Spectrogram.unit`."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    bins = mel(torch.linspace(0, form.rate_hz / 2, form.fft // 2 + 1, dtype=torch.float64))[:, None]
    low, high = mel(torch.tensor([form.low_hz, form.high_hz], dtype=torch.float64))
    edges = torch.linspace(float(low), float(high), form.bands + 2, dtype=torch.float64)
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rise, fall).clamp(min=0).float()
    if form.unit == "sum":
        # A triangle between two bins has no weight at all, and stays empty.
        triangles /= triangles.sum(dim=0).clamp(min=torch.finfo(torch.float32).tiny)
    return triangles


def _read_card(path: Path) -> TeacherFile:
    try:
        return msgspec.toml.decode(path.read_bytes(), type=TeacherFile)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the teacher's card: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _read_places(path: Path) -> NDArray[np.intp]:
    """The index among AudioSet's labels of each row. Raises ConfigError for an unknown or repeated mid."""
    places = {label.mid: label.index for label in ontology().labels}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            mids = [row["mid"] for row in csv.DictReader(file, delimiter="\t")]
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the teacher's labels: {error.strerror}") from error
    except (KeyError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a table with a column mid ({error})") from error
    unknown = [mid for mid in mids if mid not in places]
    if unknown or len(set(mids)) < len(mids) or not mids:
        wrong = f"{unknown[0]} is not a label of AudioSet" if unknown else "a mid is there twice, or there is none"
        raise ConfigError(f"{path}: {wrong}")
    return np.array([places[mid] for mid in mids], np.intp)


def _graph(path: Path) -> Callable[[NDArray[np.float32]], list[Any]]:
    """A function from a batch to the graph's outputs. Raises ModelError if the file cannot be loaded."""
    return _torchscript(path) if path.suffix == ".pt" else _onnx(path)


def _torchscript(path: Path) -> Callable[[NDArray[np.float32]], list[Any]]:
    try:
        with warnings.catch_warnings():
            # PyTorch 2.13 recommends torch.export, whose files run Python code when they are loaded.
            warnings.simplefilter("ignore", DeprecationWarning)
            graph = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        raise ModelError(f"{path}: not a TorchScript graph ({reason})") from error

    def run(batch: NDArray[np.float32]) -> list[Any]:
        with torch.inference_mode():
            out = graph(torch.from_numpy(batch))
        return [one.numpy() for one in (out if isinstance(out, tuple | list) else (out,))]

    return run


def _onnx(path: Path) -> Callable[[NDArray[np.float32]], list[Any]]:
    try:
        from perceiverd.model.onnx_runtime import onnxruntime
    except ImportError as error:
        raise ModelError(f"{path}: needs ONNX Runtime; run pip install onnxruntime, or give TorchScript") from error
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base below Exception
        raise ModelError(f"{path}: not an ONNX graph ({str(error).splitlines()[0]})") from error
    name = session.get_inputs()[0].name
    return lambda batch: list(session.run(None, {name: batch}))
