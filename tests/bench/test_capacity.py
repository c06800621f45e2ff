"""How many streams a machine carries: the search, with measurements of an imagined machine, and one real step."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.bench import capacity
from perceiverd.bench.capacity import CapacityStep
from perceiverd.bench.load import LoadReport
from perceiverd.core.errors import PerceiverdError
from tests.support.program import Perceiverd

HOP_S, SECONDS, CORES = 0.5, 20.0, 2


def report(streams: int, dropped: int, cpu_s: float) -> LoadReport:
    """What a step of 20 s on two cores would report."""
    expected = round(streams * SECONDS / HOP_S)
    quarter_s = cpu_s / 4
    return LoadReport(
        streams=streams,
        seconds=SECONDS,
        hop_s=HOP_S,
        expected=expected,
        tagged=expected - dropped,
        dropped=dropped,
        p50_ms=50,
        p99_ms=90,
        network_cpu_s=quarter_s,
        daemon_cpu_s=quarter_s,
        decode_cpu_s=quarter_s,
        sources_cpu_s=quarter_s,
        load=1.0,
        cores=CORES,
    )


class Machine:
    """A machine that carries so many streams; each takes the same share of all cores."""

    def __init__(self, limit: int, share: float) -> None:
        self.limit, self.share, self.tried = limit, share, list[int]()

    def measure(self, streams: int) -> LoadReport:
        self.tried.append(streams)
        used = min(1.0, streams * self.share) * CORES * SECONDS
        return report(streams, 0 if streams <= self.limit else streams, used)


@given(st.integers(0, 1200), st.floats(0.0001, 1.0))
def test_the_limit_is_found(limit: int, share: float) -> None:
    """Whatever a stream takes: the result is right to one stream in 20, within 25 steps, each number once."""
    machine = Machine(limit, share)
    shown: list[CapacityStep] = []
    found = capacity.search(machine.measure, shown.append, lambda: True)
    assert list(found.steps) == shown and len(machine.tried) == len(set(machine.tried)) <= 25
    assert found.carried <= limit and found.carried <= capacity.MOST
    if limit < capacity.MOST:
        assert found.too_many and limit < found.too_many <= limit + max(1, limit // capacity.EXACT) and not found.limit
        assert found.too_many - found.carried <= max(1, found.carried // capacity.EXACT)
    elif found.carried == capacity.MOST:
        assert found.too_many is None


def test_a_step_with_a_few_lost_windows_is_repeated() -> None:
    """Less than 1 % of the windows may be the fault of another program: the step counts only if it happens again."""
    tried = list[int]()

    def measure(streams: int) -> LoadReport:
        tried.append(streams)
        lost = 1 if streams == 4 and tried.count(4) == 1 else 0
        return report(streams, lost if streams <= 5 else 100, 4.0)

    found = capacity.search(measure, lambda _: None, lambda: True)
    assert tried[:2] == [4, 4] and (found.carried, found.too_many) == (5, 6)


def test_what_does_not_run_is_too_many() -> None:
    """A step that fails ends the growth and says why; if the first one fails, nothing can be measured."""
    machine = Machine(100, 0.01)

    def measure(streams: int) -> LoadReport:
        if streams > 7:
            raise PerceiverdError("only 7 of 8 streams started")
        return machine.measure(streams)

    shown: list[CapacityStep] = []
    found = capacity.search(measure, shown.append, lambda: True)
    assert (found.carried, found.too_many) == (7, 8)
    assert any("too many: only 7 of 8 streams started" in str(step) for step in shown)
    with pytest.raises(PerceiverdError, match="it is broken"):
        capacity.search(lambda _: fails(), lambda _: None, lambda: True)


def fails() -> LoadReport:
    raise PerceiverdError("it is broken")


def test_time_and_memory_end_the_search() -> None:
    """No step begins when the time is over, or has more streams than fit into the memory; the report says so."""
    late = capacity.search(Machine(100, 0.01).measure, lambda _: None, lambda: False)
    assert (late.carried, late.too_many) == (4, None)
    assert "carries 4 streams; the search ended, because its time is over" in str(late)
    small = capacity.search(Machine(100, 0.01).measure, lambda _: None, lambda: True, lambda: 3)
    assert (small.carried, small.too_many) == (3, None)
    assert "more than 3 streams need more memory than is free" in small.limit


def test_a_busy_machine_is_named() -> None:
    """If other programs ran before the start, the report says that the machine carries more alone."""
    found = capacity.search(Machine(3, 0.1).measure, lambda _: None, lambda: True)
    assert str(found).splitlines()[0] == "this machine carries 3 streams; 4 are too many"
    assert "other programs" not in str(found)
    assert "load average 2.5" in str(msgspec.structs.replace(found, load_before=2.5))
    nothing = capacity.search(Machine(0, 0.1).measure, lambda _: None, lambda: True)
    assert str(nothing).startswith("this machine cannot carry one stream")


@pytest.mark.parametrize("count", ["0", "-1", "many", "1001", "1.5"])
def test_a_wrong_number_of_streams_is_wrong_usage(perceiverd: Perceiverd, count: str) -> None:
    """The line says what is possible."""
    status, out, err = perceiverd("bench", "--streams", count)
    assert (status, out) == (2, "")
    assert f"'{count}' is not max or a number up to 1000" in err


@pytest.mark.long
def test_streams_of_a_real_daemon(tiny_model: Path) -> None:
    """With at most one stream, the search is one step through a daemon, whose report it has."""
    shown: list[CapacityStep] = []
    found = capacity.run(5, str(tiny_model), "cpu", 1, 0.5, still=False, show=shown.append, most=1)
    assert {step.streams for step in shown} == {1}
    assert all(step.report and step.report.streams == 1 for step in found.steps)
