"""The graph gives the logits of the network in PyTorch, for every kind of geometry, in both forms."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from perceiverd.core.errors import ModelError
from perceiverd.core.labels import Label
from perceiverd.model import senses
from perceiverd.model.card import Card, load_card
from perceiverd.model.checkpoint import load_network, save_model
from perceiverd.model.encoding import audio_tokens, video_tokens
from perceiverd.model.geometry import Audio, Geometry, SenseGeometry, StemGeometry, Trunk, Video
from perceiverd.model.graph import network
from perceiverd.model.graph import senses as graph_senses
from perceiverd.model.graph.builder import GraphBuilder
from perceiverd.model.graph.weights import read_index
from perceiverd.model.onnx_engine import OnnxEngine
from perceiverd.model.perceiver import Perceiver

RAW = Audio(rate_hz=16_000, samples=1_760, form="raw", patch=(160,), bands=2, resolution=(35,))
PATCHES = Video(frames=4, fps=4 / 0.11, height=27, width=50, patch=(2, 3, 5), bands=3)
WIDE = Video(frames=4, fps=4 / 0.11, height=54, width=50, patch=(1, 2, 2), bands=5)
"""Narrow content on many places: it is cut into several blocks."""
MEL = Audio(rate_hz=16_000, samples=160 * 12, form="mel", patch=(4, 8), bands=3)
MEL_STEM = msgspec.structs.replace(
    MEL, patch=(4, 4), stem=StemGeometry(("conv 3/2 6", "separable 3/2 10", "separable 5 7"))
)
STEM = StemGeometry(("conv 3/2 6", "inverted 3 4", "inverted 5/2 5", "inverted 3 5"), ceiling=6.0)
STEM_VIDEO = Video(frames=3, fps=25.0, height=12, width=20, patch=(1, 4, 4), bands=2, stem=STEM)
SENSING_AUDIO = msgspec.structs.replace(
    MEL, patch=(4, 4), stem=StemGeometry(("conv 3/2 6", "separable 3/2 10"), border=(1.4,)), sense=SenseGeometry(11)
)
SENSING_VIDEO = msgspec.structs.replace(
    STEM_VIDEO,
    stem=StemGeometry((*STEM.layers, "conv 1 9"), ceiling=6.0, border=(0.4, 0.5, 0.6)),
    sense=SenseGeometry(11, classes=7),
)
POOLED_AUDIO = msgspec.structs.replace(SENSING_AUDIO, sense=SenseGeometry(11, pooled=True))
POOLED_VIDEO = msgspec.structs.replace(SENSING_VIDEO, sense=SenseGeometry(11, classes=7, pooled=True))
TRUNK: dict[str, Any] = {"latents": 9, "width": 12, "cross_attends": 3, "layers": 1, "heads": 3, "widening": 2}

FAMILY: dict[str, tuple[Audio | None, Video | None, dict[str, Any]]] = {
    "raw and patches": (RAW, PATCHES, {}),
    "many blocks": (RAW, WIDE, {}),
    "heads": (RAW, WIDE, {"cross_heads": 5, "cross_width": 35}),
    "shared": (RAW, PATCHES, {"shared": True}),
    "label query": (RAW, PATCHES, {"head": "query", "query_width": 14, "query_residual": False, "gelu": "tanh"}),
    "added query": (RAW, None, {"head": "query"}),
    "constants": (RAW, WIDE, {"constants": 2, "cross_attends": 1}),
    "constants and heads": (RAW, PATCHES, {"constants": 3, "cross_heads": 4, "cross_width": 8}),
    "no learned channels": (None, PATCHES, {"modality_channels": 0}),
    "single precision": (msgspec.structs.replace(RAW, single=True, bands=9), None, {}),
    "mel": (MEL, None, {}),
    "stems": (MEL_STEM, msgspec.structs.replace(STEM_VIDEO), {"cross_heads": 2, "cross_width": 8}),
    "pictures alone": (None, STEM_VIDEO, {"layers": 0}),
    "senses": (SENSING_AUDIO, SENSING_VIDEO, {"head": "senses"}),
    "one sense": (None, SENSING_VIDEO, {"head": "senses"}),
    "complete windows": (POOLED_AUDIO, SENSING_VIDEO, {"head": "senses", "complete_only": True}),
    "pooled": (POOLED_AUDIO, POOLED_VIDEO, {"head": "senses"}),
}


def make(folder: Path, kind: str, dtype: torch.dtype = torch.float32) -> Card:
    """A model of this kind with random weights far from zero."""
    audio, video, changes = FAMILY[kind]
    geometry = Geometry(classes=17, trunk=Trunk(**{**TRUNK, **changes}), audio=audio, video=video)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = Perceiver(geometry.modalities, geometry.trunk, 17)
        for name, parameter in made.named_parameters():
            torch.nn.init.normal_(parameter, std=0.2 if "stems" in name else 0.4)
    labels = [Label(i, f"/m/{i}", str(i)) for i in range(17)]
    save_model(folder, made, geometry, labels, name="graph", licence="CC0-1.0", dtype=dtype)
    return load_card(folder)


def media(geometry: Geometry, batch: int = 3) -> dict[str, NDArray[Any]]:
    """Noise in every modality."""
    rng = np.random.default_rng(6)
    found: dict[str, NDArray[Any]] = {}
    if geometry.audio:
        found["audio"] = rng.normal(0, 0.2, (batch, geometry.audio.samples)).astype(np.float32)
    if video := geometry.video:
        found["video"] = rng.integers(0, 256, (batch, video.frames, video.height, video.width, 3), dtype=np.uint8)
    return found


def wanted(card: Card, seen: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The logits of the network in PyTorch, in the form of the papers."""
    contents = {}
    if "audio" in seen and card.geometry.audio:
        contents["audio"] = audio_tokens(torch.from_numpy(seen["audio"]), card.geometry.audio)
    if "video" in seen and card.geometry.video:
        contents["video"] = video_tokens(torch.from_numpy(seen["video"]), card.geometry.video)
    with torch.inference_mode():
        logits: NDArray[np.float32] = load_network(card)(contents).numpy()
    return logits


def found(engine: OnnxEngine, seen: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    video: Any = seen.get("video")
    if video is not None and engine.has_features:
        flat = engine.features(list(video.reshape(-1, *video.shape[2:])))
        video = [flat[row * video.shape[1] : (row + 1) * video.shape[1]] for row in range(len(video))]
    return engine.logits(seen.get("audio"), video)


@pytest.mark.parametrize("factorised", [False, True], ids=["plain", "factorised"])
@pytest.mark.parametrize("kind", FAMILY)
def test_logits_equal_those_of_torch(tmp_path: Path, kind: str, factorised: bool) -> None:
    """All windows, and windows without one of the modalities, have the logits of PyTorch to 1e-4 of the largest."""
    card = make(tmp_path, kind)
    engine, everything = OnnxEngine(card, 1, factorised), media(card.geometry)
    for names in {tuple(everything), *((name,) for name in everything)}:
        seen = {name: everything[name] for name in names}
        want = wanted(card, seen)
        assert np.abs(found(engine, seen) - want).max() < 1e-4 * max(1.0, float(np.abs(want).max()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("kind", ["stems", "constants"])
def test_weights_of_other_types_are_read(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    """Weights in half or double precision are converted to float32, as PyTorch's engine does."""
    card = make(tmp_path, kind, dtype)
    seen = media(card.geometry)
    for factorised in (False, True):
        want = wanted(card, seen)
        np.testing.assert_allclose(found(OnnxEngine(card, 1, factorised), seen), want, atol=1e-3)


@pytest.mark.parametrize("kind", ["stems", "label query", "many blocks", "senses"])
def test_the_exported_graph_is_valid_and_reads_media(tmp_path: Path, kind: str) -> None:
    """One graph takes samples and frames; the package `onnx` accepts it; ONNX Runtime finds the weights beside it."""
    card = make(tmp_path, kind)
    g = GraphBuilder(read_index(card))
    network.whole_graph(g, card.geometry, factorised=kind == "many blocks")
    file = tmp_path / "model.onnx"
    file.write_bytes(g.model(card.name, {"sha256": card.sha256}))
    onnx.checker.check_model(str(file), full_check=True)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    seen = media(card.geometry)
    want = wanted(card, seen)
    assert np.abs(session.run(None, seen)[0] - want).max() < 1e-4 * max(1.0, float(np.abs(want).max()))


def test_a_batch_is_processed_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large batch is processed in parts, and each window keeps its logits."""
    card = make(tmp_path, "stems")
    seen = media(card.geometry, 5)
    whole = found(OnnxEngine(card, 1), seen)
    monkeypatch.setattr("perceiverd.model.onnx_engine.MAX_LATENTS", 2 * TRUNK["latents"])
    monkeypatch.setattr("perceiverd.model.onnx_engine.MAX_FRAMES", 4)
    np.testing.assert_allclose(found(OnnxEngine(card, 1), seen), whole, atol=1e-5)


def test_only_what_the_windows_need_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of audio alone load one graph; the graph of frames and the one for both come with the first frames."""
    made: list[int] = []
    session = onnxruntime.InferenceSession

    def counted(model: bytes, *rest: Any, **more: Any) -> Any:
        made.append(len(model))
        return session(model, *rest, **more)

    monkeypatch.setattr("perceiverd.model.onnx_engine.onnxruntime.InferenceSession", counted)
    card = make(tmp_path, "senses")
    engine, seen = OnnxEngine(card, 1), media(card.geometry)
    assert not made
    for _ in range(2):
        found(engine, {"audio": seen["audio"]})
        assert len(made) == 1
    for _ in range(2):
        found(engine, seen)
        assert len(made) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_an_engine_keeps_the_file_that_it_checked(tmp_path: Path, dtype: torch.dtype) -> None:
    """If another model's file gets its name, or it is deleted, windows of a new kind still have the old logits."""
    card = make(tmp_path, "senses", dtype)
    place, other = tmp_path / "model.safetensors", tmp_path / "other.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(place).items()}, other)
    engine, seen = OnnxEngine(card, 1), media(card.geometry)
    want = {names: wanted(card, {name: seen[name] for name in names}) for names in (("audio",), ("audio", "video"))}
    other.replace(place)
    for names, logits in want.items():
        np.testing.assert_allclose(found(engine, {name: seen[name] for name in names}), logits, atol=1e-3)
        place.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"latents": None}, "latents is missing"),
        ({"latents": torch.zeros(9, 11)}, r"latents is \(9, 11\), but the geometry needs \(9, 12\)"),
        ({"more": torch.zeros(1)}, "more is not part of the model"),
        ({"latents": torch.full((9, 12), float("nan"))}, "latents has values that are not finite"),
        ({"latents": torch.zeros(9, 12, dtype=torch.int64)}, "latents is I64"),
    ],
    ids=["missing", "shape", "extra", "nan", "integers"],
)
def test_wrong_weights_are_refused(tmp_path: Path, change: dict[str, torch.Tensor | None], match: str) -> None:
    """A tensor that is missing, extra, of another shape or type, or not finite is an error in one line."""
    card = make(tmp_path, "raw and patches")
    file = tmp_path / "model.safetensors"
    weights = {**load_file(file), **change}
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, file)
    toml = (tmp_path / "model.toml").read_text()
    (tmp_path / "model.toml").write_text(toml.replace(card.sha256, sha256(file.read_bytes()).hexdigest()))
    with pytest.raises(ModelError, match=match):
        OnnxEngine(load_card(tmp_path), 1)


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\xff" * 64, b"\x08\0\0\0\0\0\0\0notjson!"])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is not safetensors, or has another sha256, is an error in one line."""
    card = make(tmp_path, "raw and patches")
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"sha256 is|cannot read the weights"):
        OnnxEngine(card, 1)
    toml = (tmp_path / "model.toml").read_text()
    (tmp_path / "model.toml").write_text(toml.replace(card.sha256, sha256(content).hexdigest()))
    with pytest.raises(ModelError, match=r"not a safetensors file|cannot read the weights"):
        OnnxEngine(load_card(tmp_path), 1)


def test_the_senses_have_the_numbers_of_the_network() -> None:
    """The graph cannot import them, because that would load PyTorch."""
    assert (graph_senses.RAREST, graph_senses.JOINT_CENTRE, graph_senses.JOINT_SPREAD) == (
        senses.RAREST,
        senses.JOINT_CENTRE,
        senses.JOINT_SPREAD,
    )
