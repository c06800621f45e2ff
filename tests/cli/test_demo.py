"""`perceiverd demo`, with a short clip and the tiny model."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from perceiverd.cli.demo import Segment, demo, read_truth
from perceiverd.core.errors import ConfigError, PerceiverdError
from perceiverd.core.labels import ontology

HEADER = "start_s\tend_s\theard\tseen\tpicture\tsound\n"


@pytest.fixture
def clip(tmp_path: Path, tiny_model: Path, wav: Callable[[float], Path]) -> Path:
    """A configuration that plays 2 s of noise."""
    path = tmp_path / "demo.toml"
    path.write_text(f"""
        model = {{ name = "{tiny_model}", threads = 1 }}
        window.hop_s = 0.5
        publish = {{ endpoint = "tcp://127.0.0.1:*", top = 527 }}
        streams.demo.sources = [{{ kind = "file", path = "{wav(2).name}" }}]
    """)
    return path


def test_the_demo_ends_by_itself(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each window is printed below its segment's true labels, then counted; the status is 0 even if none agrees."""
    truth = tmp_path / "truth.tsv"
    truth.write_text(HEADER + "0.0\t1.0\tDog|Bark\tDog\tp\ts\n1.0\t2.0\t\tNo such label\tp\ts\n")
    assert demo(clip, truth) == 0
    text = capsys.readouterr().out
    assert "0.00 to  1.00 s  heard: Dog / Bark; seen: Dog" in text
    assert "1.00 to  2.00 s  seen: No such label" in text
    assert len(re.findall(r"^ +\d\.\d\d to +\d\.\d\d s  [✓✗]  ", text, re.MULTILINE)) >= 3
    assert re.search(r"\d of [34] windows agree; \d dropped; median \d+ ms", text)
    assert "\x1b" not in text


def test_a_daemon_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    """The error has the daemon's exit status and its last line."""
    path, truth = tmp_path / "demo.toml", tmp_path / "truth.tsv"
    path.write_text("[windw]")
    truth.write_text(HEADER + "0.0\t1.0\tDog\t\tp\ts\n")
    with pytest.raises(PerceiverdError, match=r"ended with status 78; .* did you mean 'window'\?"):
        demo(path, truth)


def test_the_bundled_truth_names_labels_that_exist() -> None:
    """Segments follow each other without a gap, and every name is a label of AudioSet."""
    segments = read_truth(Path(__file__).parents[2] / "configs" / "demo" / "truth.tsv")
    assert [segment.end_s for segment in segments[:-1]] == [segment.start_s for segment in segments[1:]]
    names = {label.name for label in ontology().labels}
    for segment in segments:
        assert segment.heard or segment.seen
        assert names.issuperset({*segment.heard, *segment.seen})


def test_one_true_label_is_enough() -> None:
    """A window agrees if one of the labels that can be heard or seen is among its best."""
    segment = Segment(0, 1, ("Dog", "Bark"), ("Cat",))
    assert segment.agrees(["Speech", "Cat"])
    assert segment.agrees(["Bark"])
    assert not segment.agrees(["Speech"])


def test_a_broken_table_is_one_line(tmp_path: Path) -> None:
    """The error names a broken or missing table of true labels."""
    (tmp_path / "truth.tsv").write_text("a\tb\n1\t2\n")
    for name in ("truth.tsv", "missing.tsv"):
        with pytest.raises(ConfigError, match=name):
            read_truth(tmp_path / name)
