"""One corrected row: it changes as little as it can, and only as the clips ask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perceiverd.core.errors import ConfigError
from perceiverd.training.corrections import rows
from perceiverd.training.corrections.rows import OldRow, RowFit, RowMaterial, Vectors, Whitening

WIDTH = 11
RNG = np.random.default_rng(3)
MIXING = RNG.normal(0, 1, (WIDTH, WIDTH)) * np.geomspace(0.1, 30, WIDTH)


def vectors(count: int, *shift: float) -> Vectors:
    """Correlated vectors with very uneven channels; `shift` moves the first ones before the mixing."""
    hidden = RNG.normal(0, 1, (count, WIDTH))
    hidden[:, : len(shift)] += shift
    return (hidden @ MIXING + 5).astype(np.float32)


def score(logits: object) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


BACKGROUND, REMEMBERED = vectors(700), vectors(300)
WHITENING = Whitening.of(np.concatenate([BACKGROUND, REMEMBERED]))
OLD = OldRow((RNG.normal(0, 1, WIDTH) / (np.abs(MIXING).sum(axis=0) + 1)).astype(np.float32), -3.0)


def material(old: OldRow, present: list[Vectors], absent: list[Vectors]) -> RowMaterial:
    return RowMaterial(old, present, absent, BACKGROUND, REMEMBERED, member=0.0)


def test_without_clips_nothing_changes() -> None:
    """The old scores of background and memories are the best ones already."""
    row = RowFit(material(OLD, [], []), WHITENING).fit(10.0)
    assert row.change < 1e-3
    assert row.weight == pytest.approx(OLD.weight, abs=1e-4) and row.bias == pytest.approx(OLD.bias, abs=1e-2)


def test_the_result_is_the_minimum() -> None:
    """No small step from the result makes the loss smaller, by a loss that is computed here."""
    present, absent = [vectors(5, 4.0), vectors(9, 4.0, 1.0)], [vectors(7, 0.0, 0.0, 5.0)]
    row = RowFit(material(OLD, present, absent), WHITENING).fit(3.0)

    def loss(weight: np.ndarray, bias: float) -> float:
        def entropy(some: Vectors, target: np.ndarray | float, share: np.ndarray | float) -> float:
            logits = some.astype(np.float64) @ weight + bias
            return float((share * (np.logaddexp(0, logits) - target * logits)).sum())

        total = sum(entropy(each, 1.0, 3.0 / len(each)) for each in present)
        total += sum(entropy(each, 0.0, 3.0 / len(each)) for each in absent)
        total += entropy(BACKGROUND, score(OLD.logits(BACKGROUND)), rows.ANCHORS / len(BACKGROUND))
        old = np.asarray(OLD.logits(REMEMBERED))
        share = np.where(old >= 0, rows.MEMBERS, 1.0) * rows.ANCHORS / len(REMEMBERED)
        total += entropy(REMEMBERED, score(old), share)
        u = np.linalg.solve(WHITENING.matrix.numpy(), weight - OLD.weight)
        return total + rows.PENALTY / 2 * float(u @ u)

    least = loss(row.weight.astype(np.float64), row.bias)
    for _ in range(50):
        step = WHITENING.matrix.numpy() @ RNG.normal(0, 1e-2, WIDTH)
        assert loss(row.weight + step, row.bias + float(RNG.normal(0, 1e-2))) > least - 1e-6


def test_a_wrong_sound_is_silenced_and_the_rest_stays() -> None:
    """The score of the wrong sound falls far, those of remembered windows hardly change."""
    wrong = vectors(12, 0.0, 6.0, 6.0)
    old = OldRow(OLD.weight, OLD.bias + 6.0 - float(OLD.logits(wrong).mean()))
    row = RowFit(material(old, [], [wrong]), WHITENING).fit(100.0)
    assert score(old.logits(wrong)).mean() > 0.9 and score(row.logits(wrong)).max() < 0.3
    change = np.abs(score(row.logits(REMEMBERED)) - score(old.logits(REMEMBERED)))
    assert change.mean() < 0.05


def test_a_new_sound_is_told_from_background() -> None:
    """Five clips of a sound are enough if it differs from the background."""
    clips = [vectors(6, 5.0, -4.0) for _ in range(5)]
    row = RowFit(material(OldRow.absent(WIDTH), clips, []), WHITENING).fit(1.0)
    others, same = score(row.logits(vectors(500))), score(row.logits(vectors(200, 5.0, -4.0)))
    assert np.quantile(same, 0.05) > others.max()


def test_the_result_is_the_same_every_time() -> None:
    """A fit has no random part."""
    clips = [vectors(6, 5.0)]
    first, second = (RowFit(material(OLD, clips, []), WHITENING).fit(10.0) for _ in range(2))
    assert np.array_equal(first.weight, second.weight) and first.bias == second.bias


def test_whitened_vectors_have_unit_covariance() -> None:
    """Up to the shrinkage, whatever the sizes and correlations of the channels."""
    white = WHITENING(np.concatenate([BACKGROUND, REMEMBERED]))
    assert white.mean(dim=0).abs().max() < 1e-9
    values = torch.linalg.eigvalsh(torch.cov(white.T))
    assert values.min() > 0 and values.max() < 1 / (1 - rows.SHRINKAGE) + 1e-6
    with pytest.raises(ConfigError, match="there is no background; give --recent"):
        Whitening.of(np.zeros((1, WIDTH), np.float32))


def test_a_channel_that_hardly_varies_stays_small() -> None:
    """Within its part; another part has a scale of its own."""
    rng = np.random.default_rng(8)
    vectors = (rng.normal(0, 1, (997, 7)) * [1, 1, 1, 0.001, 100, 100, 100]).astype(np.float32)
    deviations = Whitening.of(vectors, (4, 3))(vectors).std(dim=0)
    assert deviations[3] < 0.01
    assert deviations[[0, 1, 2, 4, 5, 6]].min() > 0.7
    assert deviations.max() < 1.2


def test_constant_channels_are_harmless() -> None:
    """A channel that never changes has no correlation with others; the result stays finite."""
    flat = np.concatenate([BACKGROUND, np.ones((len(BACKGROUND), 1), np.float32)], axis=1)
    assert bool(Whitening.of(flat)(flat).isfinite().all())
