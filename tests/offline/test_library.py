"""`from perceiverd import tag` as a program uses it."""

import re
from pathlib import Path

import pytest

from perceiverd import tag
from perceiverd.config import Config
from perceiverd.core.errors import MediaError
from perceiverd.offline import library
from perceiverd.offline.notebook import FileProgress, notebook_text, progress_for
from perceiverd.offline.writers.rows import COLUMNS
from perceiverd.pipeline.rules import EventOptions
from perceiverd.wire.records import FileEvent, FileHeader, FileScores, FileSummary
from tests.support.clips import write_clip


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "a.wav", audio_s=3)


def test_records_have_types(clip: Path, tiny_model: Path) -> None:
    """A header, the windows half a second apart, events, and a summary."""
    found = list(tag(clip, model=str(tiny_model), events=EventOptions(on=0.001, allow=("Speech",))))
    assert isinstance(found[0], FileHeader) and isinstance(found[-1], FileSummary)
    assert [each.start_s for each in found if isinstance(each, FileScores)] == [0, 0.5, 1, 1.5, 2, 2.5]
    (event,) = (each for each in found if isinstance(each, FileEvent))
    assert (event.name, event.start_s, event.end_s) == ("Speech", 0, 3)


def test_windows_are_those_of_the_options(clip: Path, tiny_model: Path) -> None:
    """The hop is the given one; without events it is a window; `top` limits the labels."""
    first, *_ = (
        each for each in tag([clip, str(clip)], model=str(tiny_model), hop_s=1.5, top=2) if isinstance(each, FileScores)
    )
    assert len(first.labels) == 2
    (header,) = (each for each in tag(clip, model=str(tiny_model), events=False) if isinstance(each, FileHeader))
    assert header.hop_s == header.window_s == 0.5
    assert Config().window.hop_s == library.HOP_S


def test_a_bad_file_raises_or_is_kept(clip: Path, tiny_model: Path, tmp_path: Path) -> None:
    """By default its error is raised; otherwise the next file is tagged, and the error is there at the end."""
    bad = tmp_path / "no.wav"
    with pytest.raises(MediaError, match="there is no such file"):
        list(tag([bad, clip], model=str(tiny_model)))
    tagging = tag([bad, clip], model=str(tiny_model), skip_errors=True)
    assert {each.file for each in tagging} == {str(clip)}
    assert list(tagging.errors) == [str(bad)]


def test_leaving_early_ends_the_decoder(clip: Path, tiny_model: Path) -> None:
    """A program that wants one record need not read the file."""
    tagging = tag(clip, model=str(tiny_model))
    assert isinstance(next(tagging), FileHeader)
    del tagging


def test_rows_make_a_table(clip: Path, tiny_model: Path) -> None:
    """A data frame of pandas has the columns of the CSV, with numbers as numbers."""
    pytest.importorskip("pandas")
    table = tag(clip, model=str(tiny_model), top=3).to_pandas()
    assert tuple(table.columns) == COLUMNS
    scores = table[table.type == "scores"]
    assert len(scores) == 6 * 3
    assert 0 <= scores.score.min() <= scores.score.max() <= 1


def test_rows_make_a_table_of_polars(clip: Path, tiny_model: Path) -> None:
    """Columns have their types, even if their first thousand values are missing."""
    import polars

    table = tag(clip, model=str(tiny_model), top=300).to_polars()
    assert table.schema["peak"] == table.schema["mean"] == polars.Float64
    assert table.filter(polars.col("type") == "summary")["mean"].null_count() == 0


def test_a_model_is_loaded_once(clip: Path, tiny_model: Path) -> None:
    """A second call with the same model does not load it again."""
    list(tag(clip, model=str(tiny_model)))
    before = library._tagger.cache_info().misses
    list(tag(clip, model=str(tiny_model)))
    assert library._tagger.cache_info().misses == before


def test_progress_of_a_notebook_is_an_element() -> None:
    """It has the time within the file, never beyond its end, and escapes the name."""
    state = FileProgress(7)
    state.begin("<b>.wav")
    assert re.fullmatch(
        r'<progress style="width:20em"></progress> &lt;b&gt;.wav \(1 of 7\), 0 s, 0x real time', notebook_text(state)
    )
    state.state_length(10.0)
    state.advance(11_000_000_000)
    assert 'value="11.0" max="11.0"' in notebook_text(state)


def test_speed_counts_all_files() -> None:
    """Files before the current one count too."""
    state = FileProgress(2)
    state._began_s -= 10
    for _ in range(2):
        state.begin("a")
        state.advance(30_000_000_000)
    assert state.speed() == pytest.approx(6.0, rel=0.2)


def test_nothing_is_shown_unless_a_person_looks() -> None:
    """Without a terminal and outside of a notebook there is no progress."""
    assert type(progress_for(1, None)) is type(progress_for(1, wanted=False)) is FileProgress
