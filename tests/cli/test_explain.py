"""`perceiverd explain`: which label is meant, and what is said of it, against a real publisher."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import msgspec
import pytest
from rich.console import Console

from perceiverd.cli.explain import Look, Teller, explain, find
from perceiverd.core.errors import PerceiverdError
from perceiverd.core.labels import ontology
from perceiverd.wire import Gap, Restarted
from perceiverd.wire.messages import Candidate, Explain, explain_topic
from perceiverd.wire.publisher import Publisher
from tests.cli.test_activity import HELLO, MODEL, NOW, STATUS
from tests.cli.test_watch import DEADLINE_S, read_until

DOG = ontology().find("Dog")
BARK = ontology().find("Bark")
CANDIDATE = Candidate(
    mid=DOG.mid,
    index=DOG.index,
    name="Dog",
    score=0.9,
    surest=BARK.mid,
    smoothed=0.62,
    on=0.5,
    off=0.25,
    state="holding",
    reason="at or above on, 0.5, for 0.4 of 1 s",
    windows=2,
    event=None,
)
QUIET = [0.01] * 527


def message(*candidates: Candidate) -> Explain:
    return Explain(
        stream="door",
        start=NOW,
        end=NOW + timedelta(seconds=1),
        start_s=0,
        end_s=1,
        candidates=candidates,
        smoothed=tuple(QUIET),
        on=(0.5,) * 527,
        suppressed={},
        model=MODEL,
    )


def said(*messages: Explain, width: int | None = None, as_json: bool = False) -> list[str]:
    """The lines that these messages make, on a terminal of this width or in a pipe."""
    console = Console(width=width or 80, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115 - closed below
    with console.file:
        teller = Teller(console, "door", DOG, json=as_json, live=width is not None)
        for each in messages:
            teller.take(each)
        return console.export_text().splitlines()


@pytest.mark.parametrize("name", ["Dog", "dog", "DOG", DOG.mid])
def test_a_label_is_named_as_people_would(name: str) -> None:
    """By its name, whatever its case, or its mid."""
    assert find(name) == DOG


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dgo", "did you mean `Dog`?"),
        ("rooster", "did you mean `Chicken, rooster`"),
        ("gunshot", "did you mean `Gunshot, gunfire`"),
        ("zzzzzz", "the names are in the model's labels.tsv"),
    ],
)
def test_a_label_that_is_none_is_answered(name: str, hint: str) -> None:
    """What may have been meant is said; one word of a name that has several will do."""
    with pytest.raises(PerceiverdError, match=f"there is no label '{name}'; ") as caught:
        find(name)
    assert hint in str(caught.value)


def test_a_window_is_a_line() -> None:
    """Time, smoothed score, a gauge with score and thresholds, the verdict and its reason; signs are explained once."""
    lines = said(message(CANDIDATE), message(CANDIDATE))
    assert lines[:4] == [
        f"Dog ({DOG.mid}) of stream door",
        "█ smoothed score    ◆ score of the window alone",
        "┃ on, 0.5: from here an event may begin",
        "┊ off, 0.25: below this it fades",
    ]
    gauge = "█" * 10 + "┊" + "█" * 9 + "┃" + "█" * 4 + "·" * 11 + "◆" + "·" * 3
    reason = "at or above on, 0.5, for 0.4 of 1 s, 2 windows; heard as Bark"
    assert [line[8:] for line in lines[4:]] == [f" 0.62 {gauge} soon  {reason}"] * 2


@pytest.mark.parametrize("width", [40, 60, 100])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Where a reason does not fit beside the gauge it stands below, indented, and whole."""
    lines = said(message(CANDIDATE), width=width)
    assert max(map(len, lines[4:])) <= width
    assert len(lines) > 5
    assert " ".join(" ".join(lines[5:]).split()) == "at or above on, 0.5, for 0.4 of 1 s, 2 windows; heard as Bark"


def test_an_event_is_one() -> None:
    """The verdict is one word, whether there is an event: now, soon, or not."""
    states = {"open": "event", "fading": "event", "holding": "soon", "denied": "no", "below on": "no", "new": "no"}
    for state, verdict in states.items():
        line = said(message(msgspec.structs.replace(CANDIDATE, state=state)))[-1]
        assert line.split(" at or above")[0].split()[-1] == verdict


def test_a_quiet_label_is_explained_too() -> None:
    """A label that is no candidate has its smoothed score and its threshold all the same."""
    look = Look.at(DOG, message())
    assert (look.score, look.smoothed, look.on, look.state) == (None, 0.01, 0.5, "quiet")
    assert said(message())[-1].endswith("no    0.01 is far below 0.5")
    assert said(message(), message(CANDIDATE))[-2] == "┊ off, 0.25: below this it fades"
    few = msgspec.structs.replace(message(), smoothed=(0.1,), on=(0.5,))
    assert said(few)[-1].endswith("no    not among the labels that the model is sure of")


def test_programs_get_json() -> None:
    """A line of JSON for each window, whatever else there is to say."""
    told = [json.loads(line) for line in said(message(CANDIDATE), message(), as_json=True)]
    assert [(each["name"], each["state"], each["score"]) for each in told] == [
        ("Dog", "holding", 0.9),
        ("Dog", "quiet", None),
    ]


def test_what_keeps_windows_away_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A stream that is not up, lost windows and another daemon are told; a wrong name of a stream is an error."""
    console = Console(width=80)
    teller = Teller(console, "door", DOG, json=False, live=False)
    down = msgspec.structs.replace(STATUS, state="stalled")
    for item in (HELLO, STATUS, down, down, Gap(explain_topic("door"), 2, "b"), Restarted("c", "b")):
        teller.take(item)
    assert capsys.readouterr().out.splitlines() == [
        "door is stalled",
        "2 windows were missed",
        "the daemon was restarted",
    ]
    with pytest.raises(PerceiverdError, match="no stream 'dor' is watched there; did you mean `door`"):
        Teller(console, "dor", DOG, json=False, live=False).take(HELLO)
    with pytest.raises(PerceiverdError, match="no stream 'x' is watched there; there are door, gate"):
        Teller(console, "x", DOG, json=False, live=False).take(HELLO)


@contextmanager
def explaining(*arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`perceiverd explain` as a process; Ctrl-C ends it with status 0."""
    command = [sys.executable, "-m", "perceiverd", "explain", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            yield process
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()


def test_it_asks_for_what_it_explains() -> None:
    """The daemon learns that somebody asks about this stream; what it says then is printed at once."""
    with Publisher("tcp://127.0.0.1:*") as publisher:

        def publish() -> None:
            publisher.handle_subscribers()
            publisher.send(STATUS)
            if publisher.is_requested(explain_topic("door")):
                publisher.send(message(CANDIDATE))
            assert not publisher.is_requested(explain_topic("gate"))

        with explaining(publisher.endpoint, "--stream", "door", "--label", "dog") as process:
            assert process.stdout
            publisher.send(HELLO)
            read_until(process.stdout.fileno(), [b"Dog (/m/0bt9lr) of stream door\n", b" soon  at or above"], publish)


def test_a_wrong_label_is_told_before_anybody_is_asked() -> None:
    """Nothing is opened for a label that is none."""
    with pytest.raises(PerceiverdError, match="did you mean `Dog`"):
        explain("no endpoint", "door", "dgo")
