"""Messages about the streams `door` and `gate`, for tests of the commands that show them."""

from datetime import UTC, datetime, timedelta

import msgspec

from perceiverd.wire.messages import Event, Explanation, Hello, Model, Scores, SourceStatus, Status, Tag

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MODEL = Model("tiny", "0" * 64)
HELLO = Hello(
    version="9.9",
    streams=("door", "gate"),
    model=MODEL,
    hop_s=0.5,
    status_interval_s=1.0,
    up_since=NOW,
    boot_id="b1",
)
SCORES = Scores(
    stream="door",
    start=NOW,
    end=NOW,
    start_s=0,
    end_s=1,
    latency_ms=140,
    modalities=("audio",),
    model=MODEL,
    labels=(Tag("/m/1", 74, "Dog", 0.88), Tag("/m/2", 75, "[b]Bark", 0.5)),
    dropped=3,
)
SOURCE = SourceStatus(source="cam", state="up", data_age_s=0.1, restarts={}, dropped=0)
STATUS = Status(
    stream="door",
    time=NOW,
    state="up",
    sources=(SOURCE,),
    data_age_s=0.1,
    windows=8,
    dropped=0,
    late=0,
    gaps=0,
    subscriptions=1,
    up_since=NOW,
    model=MODEL,
)
WHY = Explanation(score=0.9, on=0.6, off=0.3, windows=4, since=NOW, reason="confirmed")
BEGIN = Event(
    stream="door",
    kind="begin",
    id="74-0",
    mid="/m/1",
    index=74,
    name="Dog",
    start=NOW,
    end=NOW + timedelta(seconds=2),
    start_s=0,
    end_s=2,
    duration_s=2,
    peak=0.93,
    mean=0.8,
    modalities=("audio",),
    continues=None,
    explanation=WHY,
    latency_ms=140.0,
    model=MODEL,
)


def status(state: str, dropped: int = 0, at_s: float = 0, **restarts: int) -> Status:
    """The status of `door`, `at_s` seconds later, with this many restarts by reason."""
    source = msgspec.structs.replace(SOURCE, restarts=restarts)
    time = NOW + timedelta(seconds=at_s)
    return msgspec.structs.replace(STATUS, state=state, dropped=dropped, sources=(source,), time=time)


def end(reason: str) -> Event:
    """The end of the event that BEGIN begins."""
    why = msgspec.structs.replace(WHY, reason=reason)
    return msgspec.structs.replace(BEGIN, kind="end", duration_s=14.2, peak=0.97, explanation=why)
