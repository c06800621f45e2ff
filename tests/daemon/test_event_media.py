"""Which media of events are kept: of streams that see, of streams that only hear, and while somebody speaks."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from perceiverd.core.errors import ConfigError
from perceiverd.core.labels import Label, ontology
from perceiverd.daemon.speech import ROOTS, SpeechMemory, speech_indices
from perceiverd.daemon.stream import StreamState
from perceiverd.sources.snapshots.requests import MediaRequest, SnapshotOptions, SnapshotRequest
from perceiverd.wire.messages import Event
from tests.support.streams import BEGAN_NS, SURE, rules, stream, window

CLIPS = SnapshotOptions("/kept", 640, 1.0, 2.0, 1.0, 1)
"""From a second before the event to two seconds after it."""
PICTURES = SnapshotOptions("/kept", 640, 0.0, 0.0, 1.0, 1)
QUARTER_NS = 250_000_000


def speaking(score: float, name: str = "Speech") -> NDArray[np.float32]:
    """Scores of a dog, and of somebody who speaks under it, far from the best labels."""
    row: NDArray[np.float32] = SURE.copy()
    row[ontology().find(name).index] = score
    row[200:300] = 0.5
    return row


class Watched:
    """A stream whose requests are recorded."""

    def __init__(self, options: SnapshotOptions, limit: float | None = None) -> None:
        self.requests: list[SnapshotRequest] = []
        self.stream: StreamState = stream(
            events=rules(allow=("Dog",), update_s=0.2),
            request_media=self._accept,
            snapshots=options,
            speech_limit=limit,
        )

    def _accept(self, request: MediaRequest) -> bool:
        assert isinstance(request, SnapshotRequest)
        self.requests.append(request)
        return True

    def tag(self, *numbers: int, row: NDArray[np.float32] = SURE, **changed: Any) -> list[Event]:
        """Tag these windows, a quarter of a second apart; the events that they bring."""
        found = [each for n in numbers for each in self.stream.tagged(replace(window(n), **changed), row)]
        return [each for each in found if isinstance(each, Event)]


def test_a_stream_that_only_hears_keeps_its_sound() -> None:
    """Its picture is the spectrogram, its clip a FLAC file; both have the name of the request."""
    watched = Watched(CLIPS)
    (begin, *_) = watched.tag(0)
    (request,) = watched.requests
    assert request.sound
    assert (begin.snapshot, begin.clip) == (f"/kept/{request.name}.jpg", f"/kept/{request.name}.flac")


def test_a_stream_that_sees_keeps_picture_and_clip() -> None:
    """As Matroska."""
    watched = Watched(CLIPS)
    (begin, *_) = watched.tag(0, pictures=[np.zeros((3, 5, 3), np.uint8)])
    (request,) = watched.requests
    assert not request.sound
    assert (begin.snapshot, begin.clip) == (f"/kept/{request.name}.jpg", f"/kept/{request.name}.mkv")


def test_sound_is_kept_only_if_clips_are_wanted() -> None:
    """A configuration that keeps pictures keeps no sound."""
    watched = Watched(PICTURES)
    (begin, *_) = watched.tag(0)
    assert watched.requests == []
    assert (begin.snapshot, begin.clip, begin.withheld) == (None, None, None)


def test_media_are_requested_when_their_time_is_clear_of_speech() -> None:
    """Not before the windows until the end of the clip are tagged."""
    watched = Watched(CLIPS, 0.1)
    (begin, *_) = watched.tag(0, row=speaking(0.09))
    assert begin.snapshot
    watched.tag(*range(1, 7))
    assert watched.requests == []
    watched.tag(7)  # its end is 2.25 s after the begin of window 0, whose middle is the event's time
    assert [request.at_ns for request in watched.requests] == [BEGAN_NS + QUARTER_NS]


@pytest.mark.parametrize("name", ["Speech", "Conversation", "Whispering", "Speech synthesizer", "Chatter"])
@pytest.mark.parametrize("at", [0, 3, 7])
def test_speech_in_the_time_of_the_clip_withholds_it(name: str, at: int) -> None:
    """In the window of the event, after it, or in the last one; the event's next message says so."""
    watched = Watched(CLIPS, 0.1)
    found = [event for n in range(9) for event in watched.tag(n, row=speaking(0.1, name) if n == at else SURE)]
    assert watched.requests == []
    assert (found[-1].snapshot, found[-1].clip, found[-1].withheld) == (None, None, "speech")
    if at == 0:
        assert found[0].withheld == "speech"


def test_speech_before_the_event_withholds_it() -> None:
    """The clip begins before the event."""
    watched = Watched(CLIPS, 0.1)
    quiet = np.zeros_like(SURE)
    quiet[ontology().find("Speech").index] = 0.5
    watched.tag(0, row=quiet)
    (begin, *_) = watched.tag(1, 2, 3, 4)
    assert begin.withheld == "speech"


def test_speech_long_before_or_after_does_not_count() -> None:
    """Only windows that overlap the clip are judged."""
    watched = Watched(CLIPS, 0.1)
    talk = np.zeros_like(SURE)
    talk[ontology().find("Speech").index] = 0.9
    watched.tag(0, row=talk)
    watched.tag(*range(1, 10), row=np.zeros_like(SURE))
    watched.tag(*range(10, 24))
    watched.tag(*range(24, 36), row=speaking(0.9))
    assert len(watched.requests) == 1


@pytest.mark.parametrize("missing", ["hole", "late"])
def test_a_time_without_scores_is_not_judged(missing: str) -> None:
    """Windows were dropped, or had no audio: speech cannot be excluded, so nothing is kept."""
    for skipped in (False, True):
        watched = Watched(CLIPS, 0.1)
        found = []
        for n in range(9):
            if n not in (3, 4, 5):
                found += watched.tag(n)
            elif not skipped:
                found += watched.tag(n, missing={"audio": missing})
        assert watched.requests == []
        assert found[-1].withheld == "unjudged"


def test_a_stream_that_ends_early_is_not_judged() -> None:
    """The last message of the event says so."""
    watched = Watched(CLIPS, 0.1)
    watched.tag(0, 1)
    (end,) = watched.stream.end_events("stopped")
    assert (end.withheld, end.snapshot, watched.requests) == ("unjudged", None, [])


def test_the_labels_of_speech() -> None:
    """Speech with all below it, and three labels beside it; a model without any is refused."""
    labels = ontology().labels
    names = {labels[index].name for index in speech_indices(labels)}
    assert {"Speech", "Male speech, man speaking", "Narration, monologue", "Speech synthesizer", "Whispering"} <= names
    assert not names & {"Singing", "Dog", "Crying, sobbing", "Laughter"}
    with pytest.raises(ConfigError, match="the model has no label for speech"):
        speech_indices([Label(0, "k700/0", "abseiling")])
    assert {label.mid for label in labels} >= set(ROOTS)


def test_the_memory_is_bounded() -> None:
    """Old windows are forgotten."""
    memory = SpeechMemory(ontology().labels)
    for number in range(10_000):
        memory.add(window(number), SURE)
    assert len(memory._windows) < 700
