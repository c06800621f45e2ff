"""`perceiverd explain`: which label is meant, and the lines for each window, with a real publisher."""

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

from perceiverd.cli.explain import ExplanationPrinter, LabelView, explain, find
from perceiverd.core.errors import PerceiverdError
from perceiverd.core.labels import ontology
from perceiverd.wire import Gap, Restarted
from perceiverd.wire.messages import Candidate, Explain, explain_topic
from perceiverd.wire.publisher import Publisher
from tests.support.program import DEADLINE_S, read_until
from tests.support.watched import HELLO, MODEL, NOW, STATUS

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
    reason="score at or above the on threshold 0.5 for 0.4 s",
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


def printed(*messages: Explain, width: int | None = None, as_json: bool = False) -> list[str]:
    """The lines that these messages make, on a terminal of this width or in a pipe."""
    console = Console(width=width or 80, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115 - closed below
    with console.file:
        printer = ExplanationPrinter(console, "door", DOG, json=as_json, live=width is not None)
        for each in messages:
            printer.update(each)
        return console.export_text().splitlines()


@pytest.mark.parametrize("name", ["Dog", "dog", "DOG", DOG.mid])
def test_a_label_is_found_by_name_or_mid(name: str) -> None:
    """A label is found by its name in any case, or by its mid."""
    assert find(name) == DOG


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dgo", "did you mean 'Dog'?"),
        ("rooster", "did you mean 'Chicken, rooster'"),
        ("gunshot", "did you mean 'Gunshot, gunfire'"),
        ("zzzzzz", "the model's labels.tsv lists the names"),
    ],
)
def test_an_unknown_label_gets_suggestions(name: str, hint: str) -> None:
    """The error suggests the nearest labels; one word of a name with several is enough."""
    with pytest.raises(PerceiverdError, match=f"unknown label '{name}'; ") as caught:
        find(name)
    assert hint in str(caught.value)


def test_a_window_is_a_line() -> None:
    """A line has time, smoothed score, gauge, verdict and reason; the marks are explained once."""
    lines = printed(message(CANDIDATE), message(CANDIDATE))
    assert lines[:4] == [
        f"Dog ({DOG.mid}) of stream door",
        "█ smoothed score    ◆ score of this window",
        "┃ on, 0.5: an event may begin at or above it",
        "┊ off, 0.25: an event fades below it",
    ]
    gauge = "█" * 10 + "┊" + "█" * 9 + "┃" + "█" * 4 + "·" * 11 + "◆" + "·" * 3
    reason = "score at or above the on threshold 0.5 for 0.4 s, 2 windows; scored as Bark"
    assert [line[8:] for line in lines[4:]] == [f" 0.62 {gauge} soon  {reason}"] * 2


def test_what_a_window_lacks_is_added() -> None:
    """The reason is followed by what is missing in the window and what was filled, as JSON too."""
    lacking = msgspec.structs.replace(message(CANDIDATE), filled_ms={"video": 120.4}, missing={"audio": "late"})
    assert printed(lacking)[-1].endswith("; scored as Bark; no audio: late, 120 ms of video filled")
    (line,) = printed(lacking, as_json=True)
    assert json.loads(line)["filled_ms"] == {"video": 120.4} and json.loads(line)["missing"] == {"audio": "late"}


@pytest.mark.parametrize("width", [40, 60, 100])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """A reason that does not fit beside the gauge is below it, indented and complete."""
    lines = printed(message(CANDIDATE), width=width)
    assert max(map(len, lines[4:])) <= width
    assert len(lines) > 5
    assert (
        " ".join(" ".join(lines[5:]).split())
        == "score at or above the on threshold 0.5 for 0.4 s, 2 windows; scored as Bark"
    )


def test_the_verdict_is_one_word() -> None:
    """The verdict is `event`, `soon` or `no`."""
    states = {"open": "event", "fading": "event", "holding": "soon", "denied": "no", "below on": "no", "new": "no"}
    for state, verdict in states.items():
        line = printed(message(msgspec.structs.replace(CANDIDATE, state=state)))[-1]
        assert line.split(" score at")[0].split()[-1] == verdict


def test_a_quiet_label_is_explained_too() -> None:
    """A label that is not among the candidates has its smoothed score and its threshold too."""
    view = LabelView.of(DOG, message())
    assert (view.score, view.smoothed, view.on, view.state) == (None, 0.01, 0.5, "quiet")
    assert printed(message())[-1].endswith("no    score 0.01 far below the on threshold 0.5")
    assert printed(message(), message(CANDIDATE))[-2] == "┊ off, 0.25: an event fades below it"
    few = msgspec.structs.replace(message(), smoothed=(0.1,), on=(0.5,))
    assert printed(few)[-1].endswith("no    not among the model's best labels")


def test_programs_get_json() -> None:
    """With `--json` there is a line of JSON for each window, and nothing else."""
    windows = [json.loads(line) for line in printed(message(CANDIDATE), message(), as_json=True)]
    assert [(each["name"], each["state"], each["score"]) for each in windows] == [
        ("Dog", "holding", 0.9),
        ("Dog", "quiet", None),
    ]


def test_what_delays_windows_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """A stream that is not up, missed windows and a restart are reported; an unknown stream is an error."""
    console = Console(width=80)
    printer = ExplanationPrinter(console, "door", DOG, json=False, live=False)
    down = msgspec.structs.replace(STATUS, state="stalled")
    for item in (HELLO, STATUS, down, down, Gap(explain_topic("door"), 2, "b"), Restarted("c", "b")):
        printer.update(item)
    assert capsys.readouterr().out.splitlines() == [
        "door is stalled",
        "missed 2 windows",
        "the daemon has restarted",
    ]
    with pytest.raises(PerceiverdError, match="unknown stream 'dor'; did you mean 'door'"):
        ExplanationPrinter(console, "dor", DOG, json=False, live=False).update(HELLO)
    with pytest.raises(PerceiverdError, match="unknown stream 'x'; choose from door, gate"):
        ExplanationPrinter(console, "x", DOG, json=False, live=False).update(HELLO)


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


def test_it_subscribes_to_the_explanations() -> None:
    """The publisher sees the subscription to this stream; each explanation is printed at once."""
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
            read_until(process.stdout.fileno(), [b"Dog (/m/0bt9lr) of stream door\n", b" soon  score at"], publish)


def test_an_unknown_label_needs_no_daemon() -> None:
    """An unknown label is an error before anything is opened."""
    with pytest.raises(PerceiverdError, match="did you mean 'Dog'"):
        explain("no endpoint", "door", "dgo")
