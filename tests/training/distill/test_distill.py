"""Distillation into a tiny Perceiver: it learns, repeats itself, and resumes after a stop."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from perceiverd.core.errors import ConfigError
from perceiverd.model.geometry import Audio, Geometry, SenseGeometry, StemGeometry, Trunk, Video
from perceiverd.training.distill.batches import Batch
from perceiverd.training.distill.distill import DistillStudent, distill, loss_of
from perceiverd.training.fitting.distributed import ProcessGroup
from perceiverd.training.fitting.loop import Budget, LoopState, StoppedError
from perceiverd.training.fitting.settings import FitSettings
from tests.support.distilling import CLASSES, GEOMETRY, BrightWindows, batches_of

STEM = StemGeometry(layers=("conv 3/2 8",))


def fitted(pool: Path, state: Path, count: int, video: BrightWindows | None = None) -> DistillStudent:
    """A student after `count` batches."""
    torch.manual_seed(1)
    student = DistillStudent(GEOMETRY)
    settings = FitSettings(rate=1e-2, warmup=0.1, batch=16, save_every_s=1e-9)
    place = LoopState(state / "state.pt", "one")
    distill(student, batches_of(pool, video), settings, Budget(count), place, half=False)
    return student


def same(one: DistillStudent, other: DistillStudent) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_distilling_lowers_the_loss_and_repeats_itself(pool: Path, tmp_path: Path) -> None:
    """After sixty batches the loss is less than half. A second fit gives bit-identical weights."""
    torch.manual_seed(1)
    batch = batches_of(pool).make(0)
    before = loss_of(DistillStudent(GEOMETRY), batch, half=False)[1]
    student = fitted(pool, tmp_path / "one", 60)
    assert loss_of(student, batch, half=False)[1] < before / 2
    assert same(student, fitted(pool, tmp_path / "other", 60))


def test_a_stopped_fit_ends_like_one_without_a_stop(pool: Path, tmp_path: Path) -> None:
    """A fit with a spent budget takes no step. A fit that was stopped and resumed has the weights of one without."""
    whole = fitted(pool, tmp_path / "whole", 30, BrightWindows())
    assert same(whole, fitted(pool, tmp_path / "whole", 30, BrightWindows()))
    average = ProcessGroup.average

    def stop(group: ProcessGroup, module: torch.nn.Module, spent_s: float) -> float:
        signal.raise_signal(signal.SIGTERM)
        return average(group, module, spent_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessGroup, "average", stop)
        for step in range(1, 4):
            with pytest.raises(StoppedError, match=f"after {step} steps; to resume, run the same command"):
                fitted(pool, tmp_path / "stopped", 30, BrightWindows())
    assert same(whole, fitted(pool, tmp_path / "stopped", 30, BrightWindows()))


def test_a_damaged_or_foreign_state_is_refused(pool: Path, tmp_path: Path) -> None:
    """A damaged state and the state of another fit are errors that name the file or its folder."""
    fitted(pool, tmp_path, 1)
    whole = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(ConfigError, match="has the state of a fit with other clips, labels or settings"):
        LoopState(tmp_path / "state.pt", "other").load()
    for damaged in (b"", whole[:1000], whole[:-100], b"no state"):
        (tmp_path / "state.pt").write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"state\.pt: is not a state of a fit, or is damaged"):
            fitted(pool, tmp_path, 2)


@pytest.mark.parametrize("complete_only", [False, True])
def test_the_latents_add_only_what_both_senses_say(complete_only: bool) -> None:
    """The classifiers do not learn. The latents learn to add nothing to a sense alone, and the targets of both."""
    audio = Audio(
        rate_hz=16_000,
        samples=1_600,
        form="mel",
        patch=(2, 2),
        bands=1,
        stem=STEM,
        sense=SenseGeometry(CLASSES, pooled=complete_only),
    )
    video = Video(
        frames=2, fps=20, height=6, width=10, patch=(1, 2, 2), bands=1, stem=STEM, sense=SenseGeometry(CLASSES)
    )
    geometry = Geometry(CLASSES, Trunk(4, 8, 1, 1, 2, head="senses", complete_only=complete_only), audio, video)
    student = DistillStudent(geometry)
    learning = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert "perceiver.latents" in learning and not any(".senses." in name for name in learning)
    tokens = {m.name: torch.rand(3, m.tokens, 8) for m in geometry.modalities}
    both, targets = frozenset(tokens), torch.rand(3, CLASSES)
    for kind in ("audio", "video", "both"):
        contents = {name: tokens[name] for name in tokens if kind in (name, "both")}
        batch = Batch(kind, contents, targets, torch.ones(3, CLASSES), None, both)
        logits, _, alone = student(contents, both)
        wanted = targets if kind == "both" else logits.sigmoid()
        assert (alone is None) == (kind == "both")
        expected = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / 3
        loss = loss_of(student, batch, half=False)[0]
        torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
        loss.backward()
    last = student.perceiver.head.out.weight.grad
    assert last is not None and (last[:, :8] != 0).any() and (last[:, 8:] == 0).all()
