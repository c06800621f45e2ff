"""The network for GPUs gives the logits of the plain network, for every kind of geometry and any missing modality."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from perceiverd.model.cuda.network import DeviceMedia, DeviceNetwork
from perceiverd.model.cuda.reading import read_plainly
from perceiverd.model.encoding import audio_tokens, video_tokens
from perceiverd.model.geometry import Audio, Geometry, SenseGeometry, StemGeometry, Trunk, Video
from perceiverd.model.perceiver import Perceiver
from tests.support.devices import DEVICES

TRUNK: dict[str, Any] = {"latents": 9, "width": 12, "cross_attends": 3, "layers": 1, "heads": 3, "widening": 2}
RAW = Audio(rate_hz=8_000, samples=77, form="raw", patch=(7,), bands=2, resolution=(35,))
MEL = Audio(rate_hz=16_000, samples=3200, form="mel", patch=(5, 16), bands=2)
HEARING = Audio(
    rate_hz=16_000,
    samples=3200,
    form="mel",
    patch=(4, 4),
    bands=2,
    stem=StemGeometry(("conv 3/2 6", "separable 3/2 8"), border=(1.4,)),
)
PIXELS = Video(frames=6, fps=1, height=15, width=14, patch=(2, 5, 2), bands=3)
SEEING = Video(
    frames=3,
    fps=1,
    height=20,
    width=28,
    patch=(1, 4, 4),
    bands=2,
    stem=StemGeometry(("conv 3/2 6", "inverted 3 5", "inverted 5/2 8", "inverted 3 8"), 6.0, (0.4, 0.5, 0.6)),
)
SENSE = SenseGeometry(labels=11, classes=4)
KINDS: dict[str, tuple[Audio | None, Video | None, dict[str, Any]]] = {
    "published": (RAW, PIXELS, {"head": "query", "query_width": 14, "query_residual": False, "gelu": "tanh"}),
    "mel": (MEL, PIXELS, {"constants": 2, "shared": True}),
    "stems": (HEARING, SEEING, {"cross_heads": 5, "cross_width": 35, "modality_channels": 0}),
    "senses": (
        msgspec.structs.replace(HEARING, sense=SENSE),
        msgspec.structs.replace(SEEING, sense=SENSE),
        {"head": "senses", "cross_heads": 5, "cross_width": 35},
    ),
    "complete windows": (
        msgspec.structs.replace(HEARING, sense=msgspec.structs.replace(SENSE, pooled=True)),
        msgspec.structs.replace(SEEING, sense=SENSE),
        {"head": "senses", "cross_heads": 5, "cross_width": 35, "complete_only": True},
    ),
    "hears": (MEL, None, {"cross_attends": 1}),
    "sees": (None, SEEING, {}),
}
Missing = tuple[tuple[bool, ...], tuple[bool, ...]]
"""Which windows have audio, and which have video."""
MISSING: list[Missing] = [
    ((True, True, True), (True, True, True)),
    ((True, False, True), (True, True, True)),
    ((True, False, True), (False, True, True)),
]


def make(kind: str, std: float = 0.4) -> tuple[Geometry, Perceiver]:
    audio, video, changes = KINDS[kind]
    if audio and video:  # both must last equally long
        video = msgspec.structs.replace(video, fps=video.frames * audio.rate_hz / audio.samples)
    geometry = Geometry(17, Trunk(**{**TRUNK, **changes}), audio, video)
    torch.manual_seed(5)
    network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes).double().eval()
    for parameter in network.parameters():  # so that biases are not zero and scores are far from equal
        torch.nn.init.normal_(parameter, std=std)
    return geometry, network


def media(geometry: Geometry, here: Missing, device: str) -> DeviceMedia:
    torch.manual_seed(6)
    audio, video, batch = geometry.audio, geometry.video, len(here[0])
    samples = torch.rand(batch, audio.samples, dtype=torch.float64) * 2 - 1 if audio else None
    shape = (batch, video.frames, video.height, video.width, 3) if video else None
    frames = torch.randint(0, 256, shape, dtype=torch.uint8) if shape else None
    present = dict(zip(("audio", "video"), here, strict=True))
    return DeviceMedia(
        None if samples is None else samples.to(device),
        None if frames is None else frames.to(device),
        {m.name: torch.tensor(present[m.name], device=device) for m in geometry.modalities},
    )


@torch.no_grad()
def plain(geometry: Geometry, network: Perceiver, seen: DeviceMedia) -> Tensor:
    contents = {}
    if geometry.audio and seen.samples is not None:
        contents["audio"] = audio_tokens(seen.samples.cpu(), geometry.audio)
    if geometry.video and seen.frames is not None:
        contents["video"] = video_tokens(seen.frames.cpu(), geometry.video).double()
    logits: Tensor = network(contents, {name: here.cpu() for name, here in seen.present.items()})
    return logits


def distance(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, over the largest value."""
    return float((found.cpu() - wanted).abs().max() / wanted.abs().max())


def cases() -> Iterator[Any]:
    for kind, (audio, video, _) in KINDS.items():
        for number, here in enumerate(MISSING):
            if (audio and video) or all(here[0 if audio else 1]):
                yield pytest.param(kind, here, id=f"{kind}-{number}")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("kind", "here"), list(cases()))
def test_logits_equal_the_plain_network(kind: str, here: Missing, device: str) -> None:
    """In float64, windows of one batch with different modalities missing have the plain network's logits."""
    geometry, network = make(kind)
    seen = media(geometry, here, device)
    ready = DeviceNetwork(network, geometry, torch.device(device), None, read_plainly)
    # Pixels become float32 in the plain network, also beside float64.
    assert distance(ready(seen), plain(geometry, network, seen)) < 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["published", "senses"])
def test_half_precision_is_close(kind: str, half: torch.dtype, device: str) -> None:
    """With products in half precision, logits are within 3 % of their range; weights stay as they were."""
    geometry, network = make(kind, std=0.15)
    seen = media(geometry, MISSING[0], device)
    wanted = plain(geometry, network, seen)
    seen = DeviceMedia(None if seen.samples is None else seen.samples.float(), seen.frames, seen.present)
    ready = DeviceNetwork(network.float(), geometry, torch.device(device), half, read_plainly)
    found = ready(seen)
    assert found.dtype == torch.float32 and all(each.dtype == torch.float32 for each in network.parameters())
    assert distance(found.double(), wanted) < 0.03


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["published", "complete windows"])
def test_what_is_absent_is_not_read(kind: str, device: str) -> None:
    """If a window lacks a modality, the memory there has no effect on its logits, not even NaN."""
    geometry, network = make(kind)
    seen = media(geometry, ((True, False, True), (True, True, True)), device)
    ready = DeviceNetwork(network, geometry, torch.device(device), None, read_plainly)
    wanted = ready(seen)
    assert seen.samples is not None
    seen.samples[1] = float("nan")
    assert torch.equal(ready(seen), wanted)
