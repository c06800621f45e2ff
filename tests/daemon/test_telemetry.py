"""What the loop measures: distributions, the level of audio, the time of a batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.daemon.telemetry import (
    LOWEST_DBFS,
    Distribution,
    Histogram,
    LoopCounts,
    inferences,
    latencies,
    level_dbfs,
)


@given(st.lists(st.floats(-10, 100)))
def test_a_histogram_counts_each_value_once(values: list[float]) -> None:
    """Each value counts in the lowest class whose bound it does not exceed; the total is the sum."""
    histogram = Histogram(0.5, 1, 30)
    for value in values:
        histogram.add(value)
    found = histogram.frozen()
    up_to = [sum(value <= bound for value in values) for bound in (0.5, 1, 30)]
    assert np.cumsum(found.counts).tolist() == [*up_to, len(values)]
    assert found.total == pytest.approx(sum(values))


def test_a_frozen_distribution_does_not_change() -> None:
    """A distribution keeps the counts of the moment at which it was taken."""
    histogram = Histogram(1)
    before = histogram.frozen()
    histogram.add(0.5)
    assert before == Distribution((1,), (0, 0), 0)
    assert latencies().frozen().total == inferences().frozen().total == 0


@pytest.mark.parametrize(("bounds", "counts"), [((1.0,), (0,)), ((2.0, 1.0), (0, 0, 0)), ((1.0, 1.0), (0, 0, 0))])
def test_a_distribution_is_checked(bounds: tuple[float, ...], counts: tuple[int, ...]) -> None:
    """Bounds ascend, and there is one class more than bounds."""
    with pytest.raises(ValueError, match="counts for the bounds"):
        Distribution(bounds, counts, 0)


def test_levels_are_of_full_scale() -> None:
    """A square wave is 0 dB, a sine 3 dB less, a tenth of it 20 dB less; silence has the lowest level."""
    sine = np.sin(2 * np.pi * 441 * np.arange(44_100) / 44_100).astype(np.float32)
    assert level_dbfs(np.sign(sine + np.float32(0.001))) == pytest.approx(0, abs=1e-3)
    assert level_dbfs(sine) == pytest.approx(-3.01, abs=0.01)
    assert level_dbfs(sine / np.float32(10)) == pytest.approx(-23.01, abs=0.01)
    assert level_dbfs(np.zeros(7, np.float32)) == LOWEST_DBFS
    assert level_dbfs(np.full(7, 1e-30, np.float32)) == LOWEST_DBFS


def test_a_batch_is_timed() -> None:
    """Each inference adds one value to the distribution, and its CPU time to the sum."""
    counts = LoopCounts()
    counts.add_inference(0.25, 0.5)
    counts.add_inference(0.5, 0.25)
    found = counts.inference.frozen()
    assert (sum(found.counts), found.total, counts.inference_cpu_s) == (2, 0.75, 0.75)
