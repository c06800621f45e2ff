"""Files through windower, tagger and tracker: their records, and errors of bad files."""

import itertools
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
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
from perceiverd.offline.decoding import Decoder
from perceiverd.offline.tag import TagOptions
from perceiverd.offline.writers.formats import FORMATS
from perceiverd.offline.writers.writer import WriterOptions
from perceiverd.pipeline.rules import EventOptions, LabelOptions, Rules, resolve
from perceiverd.pipeline.tagger import Tagger
from perceiverd.pipeline.windower import Window
from perceiverd.wire.records import FileEvent, FileHeader, FileScores, FileSummary
from tests.support.clips import GEOMETRY, make_model, write_clip

OPTIONS = TagOptions(top=3, hop_ns=NS_PER_S, batch=4)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    return Tagger(load_card(make_model(tmp_path_factory.mktemp("model") / "tiny")), device="cpu")


def windows(path: Path, tagger: Tagger, options: TagOptions = OPTIONS) -> list[FileScores]:
    header, *found, summary = tag.records(str(path), tagger, options)
    assert isinstance(header, FileHeader)
    assert isinstance(summary, FileSummary)
    assert all(isinstance(record, FileScores) for record in found)
    return [record for record in found if isinstance(record, FileScores)]


def summary_of(path: Path, tagger: Tagger, top: int) -> FileSummary:
    *_, summary = tag.records(str(path), tagger, TagOptions(top, NS_PER_S, 4))
    assert isinstance(summary, FileSummary)
    return summary


def events(path: Path, tagger: Tagger, options: TagOptions) -> list[FileEvent]:
    return [record for record in tag.records(str(path), tagger, options) if isinstance(record, FileEvent)]


JSONL, SCORES = FORMATS["jsonl"], WriterOptions(frozenset({"scores"}))


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_windows_follow_each_other_to_the_end(tmp_path: Path, tagger: Tagger, ending: str) -> None:
    """Windows of a film have audio and video, and the last window ends with the film."""
    found = windows(write_clip(tmp_path / f"film.{ending}", video_s=3.4, audio_s=3.4), tagger)
    assert [record.start_s for record in found[:3]] == [0, 1, 2]
    assert found[-1].end_s == pytest.approx(3.4, abs=0.1)
    assert {record.modalities for record in found} == {("audio", "video")}
    assert all(record.end_s - record.start_s == pytest.approx(1) for record in found)


@pytest.mark.parametrize("ending", ["wav", "ogg"])
def test_audio_without_video_is_tagged(tmp_path: Path, tagger: Tagger, ending: str) -> None:
    """A file without video is tagged by its audio; the video counts as missing."""
    found = windows(write_clip(tmp_path / f"noise.{ending}", audio_s=2), tagger)
    assert [record.modalities for record in found] == [("audio",), ("audio",)]


def test_video_without_audio_is_tagged(tmp_path: Path, tagger: Tagger) -> None:
    """A silent film is tagged by its video; the audio counts as missing."""
    found = windows(write_clip(tmp_path / "silent.mp4", video_s=2), tagger)
    assert {record.modalities for record in found} == {("video",)}


def test_audio_that_starts_late_is_missing_before(tmp_path: Path, tagger: Tagger) -> None:
    """If audio starts 2 s after the video, earlier windows have video only, and later windows have both."""
    found = windows(write_clip(tmp_path / "late.mkv", video_s=5, audio_s=3, audio_from_s=2), tagger)
    heard = {record.start_s: "audio" in record.modalities for record in found}
    assert not heard[0]
    assert not heard[1]
    assert heard[3]
    assert all("video" in record.modalities for record in found if record.start_s < 4)


def test_a_short_file_is_one_window(tmp_path: Path, tagger: Tagger) -> None:
    """A file that is shorter than a window is tagged too."""
    assert len(windows(write_clip(tmp_path / "short.wav", audio_s=0.3), tagger)) == 1


@pytest.mark.parametrize("hop_s", [0.4, 1.7])
def test_hop_is_kept(tmp_path: Path, tagger: Tagger, hop_s: float) -> None:
    """Windows start once per hop, whether it is shorter or longer than a window."""
    options = TagOptions(top=1, hop_ns=round(hop_s * NS_PER_S), batch=4)
    found = windows(write_clip(tmp_path / "noise.wav", audio_s=5), tagger, options)
    assert [record.start_s for record in found[:3]] == pytest.approx([0, hop_s, 2 * hop_s])


def test_batches_change_nothing(tmp_path: Path, tagger: Tagger) -> None:
    """The scores do not depend on how many windows the network scores together."""
    path = write_clip(tmp_path / "film.mkv", video_s=6.5, audio_s=6.5)
    one, many = (
        [tag.score for record in windows(path, tagger, TagOptions(527, NS_PER_S, batch)) for tag in record.labels]
        for batch in (1, 5)
    )
    assert one == pytest.approx(many, abs=1e-4)


def test_a_summary_is_the_mean_over_windows(tmp_path: Path, tagger: Tagger) -> None:
    """The summary has the mean score of each label, best first."""
    path = write_clip(tmp_path / "film.mkv", video_s=4, audio_s=4)
    summary = summary_of(path, tagger, 527)
    each = windows(path, tagger, TagOptions(527, NS_PER_S, 4))
    by_label = [{label.mid: label.score for label in record.labels} for record in each]
    assert summary.windows == len(each)
    for label in summary.labels:
        assert label.score == pytest.approx(sum(scores[label.mid] for scores in by_label) / len(each), abs=2e-6)
    assert [label.score for label in summary.labels] == sorted((label.score for label in summary.labels), reverse=True)


def rules_for(tagger: Tagger, path: Path) -> Rules:
    """Rules by which only the best label of this file has events."""
    (label,) = summary_of(path, tagger, 1).labels
    options = EventOptions(min_duration_s=0, allow=(label.mid,), labels={label.mid: LabelOptions(on=label.score / 2)})
    return resolve(tagger.card.labels, tagger.card.calibration, options)


def test_events_are_written_when_they_end(tmp_path: Path, tagger: Tagger) -> None:
    """A label that holds in every window is one event of the file's length, however windows overlap."""
    path = write_clip(tmp_path / "film.mkv", video_s=6, audio_s=6)
    rules = rules_for(tagger, path)
    for hop_s, batch in ((1, 4), (0.3, 1), (0.3, 7)):
        options = TagOptions(1, round(hop_s * NS_PER_S), batch, rules=rules)
        (event,) = events(path, tagger, options)
        assert rules.allowed[event.index]
        assert (event.explanation.reason, event.modalities) == ("stream ended", ("audio", "video"))
        assert event.start_s == 0
        assert event.end_s == pytest.approx(6, abs=0.1)
        assert event.duration_s == pytest.approx(event.end_s)
        assert event.peak >= event.mean > event.explanation.on > event.explanation.off


def test_events_before_a_fault_are_written(tmp_path: Path, tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a file cannot be read any further, open events end there before the error is raised."""
    path = write_clip(tmp_path / "noise.wav", audio_s=6)
    rules = rules_for(tagger, path)
    whole = tag._windows

    def torn(file: str, geometry: Geometry, options: TagOptions, decoder: Decoder) -> Iterator[Window]:
        yield from itertools.islice(whole(file, geometry, options, decoder), 3)
        raise MediaError("torn")

    monkeypatch.setattr(tag, "_windows", torn)
    found = tag.records(str(path), tagger, TagOptions(1, NS_PER_S, 2, rules=rules))
    *_, event, summary = itertools.islice(found, 6)
    assert isinstance(event, FileEvent)
    assert (event.start_s, event.end_s) == (0, 3)
    assert isinstance(summary, FileSummary)
    assert (summary.windows, summary.end_s, summary.error) == (3, 3, "torn")
    with pytest.raises(MediaError, match="torn"):
        next(found)


def test_a_header_says_what_the_file_is(tmp_path: Path, tagger: Tagger) -> None:
    """It has the length that the file states, what the file has, and how windows follow each other."""
    header, *_ = tag.records(str(write_clip(tmp_path / "a.wav", audio_s=3)), tagger, OPTIONS)
    assert isinstance(header, FileHeader)
    assert (header.length_s, header.modalities, header.window_s, header.hop_s) == (3, ("audio",), 1, 1)
    assert header.model.sha256 == tagger.card.sha256


def test_progress_is_reported(tmp_path: Path, tagger: Tagger) -> None:
    """The callback gets the time within the file after each window."""
    done_ns: list[int] = []
    list(tag.records(str(write_clip(tmp_path / "noise.wav", audio_s=3)), tagger, OPTIONS, done_ns.append))
    assert done_ns == [1 * NS_PER_S, 2 * NS_PER_S, 3 * NS_PER_S]


def test_memory_does_not_grow_with_the_file(tmp_path: Path, tagger: Tagger) -> None:
    """A file four times as long takes no more memory; its audio alone would be 3.8 MB more."""

    def peak(path: Path) -> int:
        tracemalloc.start()
        try:
            for _ in tag.records(str(path), tagger, OPTIONS):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    short = peak(write_clip(tmp_path / "short.wav", audio_s=20))
    assert peak(write_clip(tmp_path / "long.wav", audio_s=80)) < short + 1_000_000


def test_a_bad_file_does_not_stop_the_others(
    tmp_path: Path, tagger: Tagger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files before and after bad ones are tagged; each bad file gives one line of error."""
    good = [write_clip(tmp_path / name, audio_s=1) for name in ("a.wav", "z.wav")]
    empty, text = tmp_path / "empty.mp4", tmp_path / "text.mp4"
    empty.touch()
    text.write_text("no film\n" * 100)
    bad = [empty, text, tmp_path, tmp_path / "missing.mp4"]
    status = tag.tag([str(path) for path in (good[0], *bad, good[1])], tagger, OPTIONS, JSONL, SCORES)
    out, err = capsys.readouterr()
    assert status == 1
    assert [json.loads(line)["file"] for line in out.splitlines()] == [str(path) for path in good]
    assert [line.split(": ")[:2] for line in err.splitlines()] == [["perceiverd", str(path)] for path in bad]


def test_all_good_is_zero(tmp_path: Path, tagger: Tagger, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 0 if every file was read, and standard error stays empty."""
    assert tag.tag([str(write_clip(tmp_path / "a.wav", audio_s=1))], tagger, OPTIONS, JSONL, SCORES) == 0
    assert capsys.readouterr().err == ""


def test_output_goes_into_a_file(tmp_path: Path, tagger: Tagger, capsys: pytest.CaptureFixture[str]) -> None:
    """With an output file, standard output stays empty."""
    output = tmp_path / "out.jsonl"
    tag.tag([str(write_clip(tmp_path / "a.wav", audio_s=2))], tagger, OPTIONS, JSONL, replace(SCORES, target=output))
    assert len(output.read_text().splitlines()) == 2
    assert capsys.readouterr().out == ""


def test_output_never_replaces_a_file_to_tag(tmp_path: Path, tagger: Tagger) -> None:
    """An output that is one of the inputs is refused, and the input stays as it is."""
    path = write_clip(tmp_path / "a.wav", audio_s=1)
    before = path.read_bytes()
    with pytest.raises(PerceiverdError, match=r"a\.wav: is one of the files to tag"):
        tag.tag([str(path)], tagger, OPTIONS, JSONL, replace(SCORES, target=path))
    assert path.read_bytes() == before


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path, tagger: Tagger) -> None:
    """The error gives the reason."""
    with pytest.raises(PerceiverdError, match="cannot write the output: No such file or directory"):
        tag.tag([], tagger, OPTIONS, JSONL, WriterOptions(target=tmp_path / "no" / "out.jsonl"))


def test_a_file_without_media_for_the_model_is_an_error(tmp_path: Path) -> None:
    """A silent film is an error for a model that uses only audio."""
    audio_only = Geometry(classes=527, trunk=GEOMETRY.trunk, audio=GEOMETRY.audio)
    tagger = Tagger(load_card(make_model(tmp_path / "audio", audio_only)), device="cpu")
    path = write_clip(tmp_path / "silent.mp4", video_s=2)
    with pytest.raises(MediaError, match=r"silent\.mp4"):
        list(tag.records(str(path), tagger, OPTIONS))


def test_a_name_that_is_not_utf8_is_written(tmp_path: Path, tagger: Tagger, capsys: pytest.CaptureFixture[str]) -> None:
    """A file whose name is not UTF-8 is read, and its name is written with a replacement character."""
    path = tmp_path / "caf\udce9.wav"
    write_clip(tmp_path / "a.wav", audio_s=1).rename(path)
    assert tag.tag([str(path)], tagger, OPTIONS, JSONL, SCORES) == 0
    assert json.loads(capsys.readouterr().out)["file"].endswith("caf\ufffd.wav")


def test_a_url_is_tagged(tmp_path: Path, tagger: Tagger) -> None:
    """A clip is read over HTTP like a file, and its name is the URL without the password."""
    write_clip(tmp_path / "a.wav", audio_s=2)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"127.0.0.1:{server.server_port}/a.wav"
            found = list(tag.records(f"http://me:secret@{address}", tagger, OPTIONS))
        finally:
            server.shutdown()
            thread.join()
    assert [record.file for record in found] == [f"http://{address}"] * 4
    assert "secret" not in repr(found)
