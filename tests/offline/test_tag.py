"""Files through windower and tagger: what comes out, and what a bad file does."""

import itertools
import json
import tracemalloc
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from perceiverd.core.errors import MediaError, PerceiverdError
from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import load_card
from perceiverd.model.geometry import Geometry
from perceiverd.offline import tag
from perceiverd.offline.records import FileEvent, FileScores, FileSummary, JsonLines
from perceiverd.offline.tag import TagOptions
from perceiverd.pipeline.rules import EventOptions, LabelOptions, Rules, resolve
from perceiverd.pipeline.tagger import Tagger
from perceiverd.pipeline.windower import Window
from tests.support.clips import GEOMETRY, make_model, write_clip

WISH = TagOptions(top=3, hop_ns=NS_PER_S, batch=4, summary=False)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    return Tagger(load_card(make_model(tmp_path_factory.mktemp("model") / "tiny")), device="cpu")


def windows(path: Path, tagger: Tagger, wish: TagOptions = WISH) -> list[FileScores]:
    found = list(tag.records(str(path), tagger, wish))
    assert all(isinstance(record, FileScores) for record in found)
    return [record for record in found if isinstance(record, FileScores)]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_windows_follow_each_other_to_the_end(tmp_path: Path, tagger: Tagger, ending: str) -> None:
    """Windows of a film hold sound and pictures, and the last one ends where the film does."""
    found = windows(write_clip(tmp_path / f"film.{ending}", video_s=3.4, audio_s=3.4), tagger)
    assert [record.start_s for record in found[:3]] == [0, 1, 2]
    assert found[-1].end_s == pytest.approx(3.4, abs=0.1)
    assert {record.modalities for record in found} == {("audio", "video")}
    assert all(record.end_s - record.start_s == pytest.approx(1) for record in found)


@pytest.mark.parametrize("ending", ["wav", "ogg"])
def test_sound_alone_is_heard(tmp_path: Path, tagger: Tagger, ending: str) -> None:
    """A file without pictures is tagged by its sound, the pictures marked missing."""
    found = windows(write_clip(tmp_path / f"noise.{ending}", audio_s=2), tagger)
    assert [record.modalities for record in found] == [("audio",), ("audio",)]


def test_pictures_alone_are_seen(tmp_path: Path, tagger: Tagger) -> None:
    """A silent film is tagged by its pictures, the sound marked missing."""
    found = windows(write_clip(tmp_path / "silent.mp4", video_s=2), tagger)
    assert {record.modalities for record in found} == {("video",)}


def test_sound_that_begins_late_is_missing_before(tmp_path: Path, tagger: Tagger) -> None:
    """Where sound begins 2 s into a film, windows before have pictures only, those after have both."""
    found = windows(write_clip(tmp_path / "late.mkv", video_s=5, audio_s=3, audio_from_s=2), tagger)
    heard = {record.start_s: "audio" in record.modalities for record in found}
    assert not heard[0]
    assert not heard[1]
    assert heard[3]
    assert all("video" in record.modalities for record in found if record.start_s < 4)


def test_a_short_file_is_one_window(tmp_path: Path, tagger: Tagger) -> None:
    """A sound shorter than a window is tagged too."""
    assert len(windows(write_clip(tmp_path / "short.wav", audio_s=0.3), tagger)) == 1


@pytest.mark.parametrize("hop_s", [0.4, 1.7])
def test_hop_is_kept(tmp_path: Path, tagger: Tagger, hop_s: float) -> None:
    """Windows begin every hop, closer than a window is long or further apart."""
    wish = TagOptions(top=1, hop_ns=round(hop_s * NS_PER_S), batch=4, summary=False)
    found = windows(write_clip(tmp_path / "noise.wav", audio_s=5), tagger, wish)
    assert [record.start_s for record in found[:3]] == pytest.approx([0, hop_s, 2 * hop_s])


def test_batches_change_nothing(tmp_path: Path, tagger: Tagger) -> None:
    """The scores are the same whether windows go through the network one by one or together."""
    path = write_clip(tmp_path / "film.mkv", video_s=6.5, audio_s=6.5)
    one, many = (
        [
            tag.score
            for record in windows(path, tagger, TagOptions(527, NS_PER_S, batch, summary=False))
            for tag in record.labels
        ]
        for batch in (1, 5)
    )
    assert one == pytest.approx(many, abs=1e-4)


def test_a_summary_is_the_mean_over_windows(tmp_path: Path, tagger: Tagger) -> None:
    """One record holds the mean of every label's scores, best first."""
    path = write_clip(tmp_path / "film.mkv", video_s=4, audio_s=4)
    (summary,) = tag.records(str(path), tagger, TagOptions(527, NS_PER_S, 4, summary=True))
    assert isinstance(summary, FileSummary)
    each = windows(path, tagger, TagOptions(527, NS_PER_S, 4, summary=False))
    by_label = [{label.mid: label.score for label in record.labels} for record in each]
    assert summary.windows == len(each)
    for label in summary.labels:
        assert label.score == pytest.approx(sum(scores[label.mid] for scores in by_label) / len(each), abs=2e-6)
    assert [label.score for label in summary.labels] == sorted((label.score for label in summary.labels), reverse=True)


def rules_for(tagger: Tagger, path: Path) -> Rules:
    """Rules by which the label that is surest in this file has events, and no other."""
    best = TagOptions(1, NS_PER_S, 4, summary=True)
    (summary,) = tag.records(str(path), tagger, best)
    assert isinstance(summary, FileSummary)
    (label,) = summary.labels
    options = EventOptions(min_duration_s=0, allow=(label.mid,), labels={label.mid: LabelOptions(on=label.score / 2)})
    return resolve(tagger.card.labels, tagger.card.calibration, options)


def test_events_are_told_when_they_are_over(tmp_path: Path, tagger: Tagger) -> None:
    """What holds from the first window to the last is one event of the file's length, however windows overlap."""
    path = write_clip(tmp_path / "film.mkv", video_s=6, audio_s=6)
    rules = rules_for(tagger, path)
    for hop_s, batch in ((1, 4), (0.3, 1), (0.3, 7)):
        wish = TagOptions(1, round(hop_s * NS_PER_S), batch, summary=False, rules=rules)
        (event,) = tag.records(str(path), tagger, wish)
        assert isinstance(event, FileEvent)
        assert rules.allowed[event.index]
        assert (event.reason, event.modalities) == ("stream ended", ("audio", "video"))
        assert event.start_s == 0
        assert event.end_s == pytest.approx(6, abs=0.1)
        assert event.peak >= event.mean > event.on > event.off


def test_events_before_a_fault_are_told(tmp_path: Path, tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file can't be read any further, the events until there end there, and the fault is raised."""
    path = write_clip(tmp_path / "noise.wav", audio_s=6)
    rules = rules_for(tagger, path)
    whole = tag._windows

    def torn(file: str, geometry: Geometry, hop_ns: int) -> Iterator[Window]:
        yield from itertools.islice(whole(file, geometry, hop_ns), 3)
        raise MediaError("torn")

    monkeypatch.setattr(tag, "_windows", torn)
    told = tag.records(str(path), tagger, TagOptions(1, NS_PER_S, 2, summary=False, rules=rules))
    event = next(told)
    assert isinstance(event, FileEvent)
    assert (event.start_s, event.end_s) == (0, 3)
    with pytest.raises(MediaError, match="torn"):
        next(told)


def test_progress_is_told(tmp_path: Path, tagger: Tagger) -> None:
    """Whoever listens hears how far the file is done."""
    seen: list[int] = []
    list(tag.records(str(write_clip(tmp_path / "noise.wav", audio_s=3)), tagger, WISH, seen.append))
    assert seen == [1 * NS_PER_S, 2 * NS_PER_S, 3 * NS_PER_S]


def test_memory_does_not_grow_with_the_file(tmp_path: Path, tagger: Tagger) -> None:
    """Four times the sound takes no more memory: the minute more would be 3.8 MB."""

    def peak(path: Path) -> int:
        tracemalloc.start()
        try:
            for _ in tag.records(str(path), tagger, WISH):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    short = peak(write_clip(tmp_path / "short.wav", audio_s=20))
    assert peak(write_clip(tmp_path / "long.wav", audio_s=80)) < short + 1_000_000


def test_a_bad_file_costs_no_other(tmp_path: Path, tagger: Tagger, capsys: pytest.CaptureFixture[str]) -> None:
    """Files before and after an empty one, a text, a folder and a missing one are tagged; each fault is one line."""
    good = [write_clip(tmp_path / name, audio_s=1) for name in ("a.wav", "z.wav")]
    empty, text = tmp_path / "empty.mp4", tmp_path / "text.mp4"
    empty.touch()
    text.write_text("no film\n" * 100)
    bad = [empty, text, tmp_path, tmp_path / "missing.mp4"]
    status = tag.tag([str(path) for path in (good[0], *bad, good[1])], tagger, WISH, JsonLines())
    out, err = capsys.readouterr()
    assert status == 1
    assert [json.loads(line)["file"] for line in out.splitlines()] == [str(path) for path in good]
    assert [line.split(": ")[:2] for line in err.splitlines()] == [["perceiverd", str(path)] for path in bad]


def test_all_good_is_zero(tmp_path: Path, tagger: Tagger, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 0 where every file was read, and standard error stays empty."""
    assert tag.tag([str(write_clip(tmp_path / "a.wav", audio_s=1))], tagger, WISH, JsonLines()) == 0
    assert capsys.readouterr().err == ""


def test_output_goes_into_a_file(tmp_path: Path, tagger: Tagger, capsys: pytest.CaptureFixture[str]) -> None:
    """With an output, nothing goes to standard output."""
    output = tmp_path / "out.jsonl"
    tag.tag([str(write_clip(tmp_path / "a.wav", audio_s=2))], tagger, WISH, JsonLines(), output)
    assert len(output.read_text().splitlines()) == 2
    assert capsys.readouterr().out == ""


def test_output_never_replaces_a_file_to_tag(tmp_path: Path, tagger: Tagger) -> None:
    """An output that is one of the inputs is refused, and the input left alone."""
    path = write_clip(tmp_path / "a.wav", audio_s=1)
    before = path.read_bytes()
    with pytest.raises(PerceiverdError, match=r"a\.wav: is one of the files to tag"):
        tag.tag([str(path)], tagger, WISH, JsonLines(), path)
    assert path.read_bytes() == before


def test_an_output_that_cannot_be_is_told(tmp_path: Path, tagger: Tagger) -> None:
    """An output in a folder that is not there is an error that says why."""
    with pytest.raises(PerceiverdError, match=r"cannot be written \(No such file or directory\)"):
        tag.tag([], tagger, WISH, JsonLines(), tmp_path / "no" / "out.jsonl")


def test_a_model_that_only_hears_refuses_a_silent_film(tmp_path: Path) -> None:
    """A file with nothing for the model is an error, not silence."""
    deaf = Geometry(classes=527, trunk=GEOMETRY.trunk, audio=GEOMETRY.audio)
    tagger = Tagger(load_card(make_model(tmp_path / "ear", deaf)), device="cpu")
    path = write_clip(tmp_path / "silent.mp4", video_s=2)
    with pytest.raises(MediaError, match=r"silent\.mp4"):
        list(tag.records(str(path), tagger, WISH))


def test_a_name_that_is_not_utf8_is_written(tmp_path: Path, tagger: Tagger, capsys: pytest.CaptureFixture[str]) -> None:
    """A file's name in another encoding shows a replacement sign and is read all the same."""
    path = tmp_path / "caf\udce9.wav"
    write_clip(tmp_path / "a.wav", audio_s=1).rename(path)
    assert tag.tag([str(path)], tagger, WISH, JsonLines()) == 0
    assert json.loads(capsys.readouterr().out)["file"].endswith("caf\ufffd.wav")


def test_a_url_is_tagged(tmp_path: Path, tagger: Tagger) -> None:
    """A clip is read over HTTP as it is from a disk, and named without the URL's password."""
    write_clip(tmp_path / "a.wav", audio_s=2)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"127.0.0.1:{server.server_port}/a.wav"
            found = list(tag.records(f"http://me:secret@{address}", tagger, WISH))
        finally:
            server.shutdown()
            thread.join()
    assert [record.file for record in found] == [f"http://{address}"] * 2
