"""What the loop measures: distributions and the level of sound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.daemon.telemetry import QUIETEST_DBFS, Distribution, Histogram, inferences, latencies, level_dbfs


@given(st.lists(st.floats(-10, 100)))
def test_a_histogram_counts_each_value_once(values: list[float]) -> None:
    """Every class holds the values up to its bound that no lower one holds; the total is their sum."""
    histogram = Histogram(0.5, 1, 30)
    for value in values:
        histogram.add(value)
    found = histogram.frozen()
    up_to = [sum(value <= bound for value in values) for bound in (0.5, 1, 30)]
    assert np.cumsum(found.counts).tolist() == [*up_to, len(values)]
    assert found.total == pytest.approx(sum(values))


def test_what_was_read_does_not_change() -> None:
    """A distribution is of the moment at which it was taken."""
    histogram = Histogram(1)
    before = histogram.frozen()
    histogram.add(0.5)
    assert before == Distribution((1,), (0, 0), 0)
    assert latencies().frozen().total == inferences().frozen().total == 0


@pytest.mark.parametrize(("bounds", "counts"), [((1.0,), (0,)), ((2.0, 1.0), (0, 0, 0)), ((1.0, 1.0), (0, 0, 0))])
def test_a_distribution_is_checked(bounds: tuple[float, ...], counts: tuple[int, ...]) -> None:
    """Bounds ascend, and the last class has none."""
    with pytest.raises(ValueError, match="counts for the bounds"):
        Distribution(bounds, counts, 0)


def test_levels_are_of_full_scale() -> None:
    """A square wave is 0 dB, a sine 3 dB less, a tenth of it 20 dB less; silence and near silence are the lowest."""
    sine = np.sin(2 * np.pi * 441 * np.arange(44_100) / 44_100).astype(np.float32)
    assert level_dbfs(np.sign(sine + np.float32(0.001))) == pytest.approx(0, abs=1e-3)
    assert level_dbfs(sine) == pytest.approx(-3.01, abs=0.01)
    assert level_dbfs(sine / np.float32(10)) == pytest.approx(-23.01, abs=0.01)
    assert level_dbfs(np.zeros(7, np.float32)) == QUIETEST_DBFS
    assert level_dbfs(np.full(7, 1e-30, np.float32)) == QUIETEST_DBFS
