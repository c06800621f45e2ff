"""Many subscribers at once: reading, frozen, and coming and going. `python -m tests.support.crowd` runs it in full."""

from tests.support.crowd import Crowd, run


def test_reported_losses_are_exactly_the_lost_messages() -> None:
    """Readers lose nothing. What frozen ones lose is the same by what was sent, by their gaps and by the publisher."""
    outcome = run(Crowd(reading=6, frozen=4, coming=2, messages=400, high_water_mark=60, padding=100_000))
    assert outcome.expected_missed == outcome.gaps == outcome.reported > 0
    assert outcome.readers_missed == 0
    assert outcome.came > 0
    assert outcome.memory[-1][1] - outcome.memory[0][1] < 50
