"""The bundled models: complete, small enough, with a model card, and able to recognise the demo clip."""

from __future__ import annotations

from pathlib import Path

import pytest

from perceiverd.cli.demo import read_truth
from perceiverd.core.labels import ontology
from perceiverd.model.card import DEFAULT, WEIGHTS_FILE, bundled, load_card
from perceiverd.model.checkpoint import load_network
from perceiverd.offline import tag
from perceiverd.pipeline.tagger import Tagger
from perceiverd.wire.records import FileScores

DEMO = Path(__file__).parents[2] / "configs" / "demo"


def test_the_default_model_is_bundled() -> None:
    """The default model is one of the bundled models."""
    assert DEFAULT in bundled()


@pytest.mark.parametrize("name", bundled())
def test_a_bundled_model_is_complete(name: str) -> None:
    """Its weights load and have the card's checksum; it is below 40 MB and scores AudioSet's labels."""
    card = load_card(name)
    assert load_network(card).trunk == card.geometry.trunk
    assert (card.folder / WEIGHTS_FILE).stat().st_size < 40e6
    assert card.labels == ontology().labels
    assert card.licence in (card.folder / "README.md").read_text()


def test_the_demo_clip_is_recognised() -> None:
    """In most segments of the demo clip a true label is among the best five of a window."""
    options = tag.TagOptions(top=5, hop_ns=320_000_000, batch=16)
    records = [
        r for r in tag.records(str(DEMO / "clip.mp4"), Tagger(load_card(), "cpu"), options) if isinstance(r, FileScores)
    ]
    segments = read_truth(DEMO / "truth.tsv")
    found = [
        any(
            segment.agrees([tag.name for tag in record.labels])
            for record in records
            if segment.start_s <= record.start_s and record.end_s <= segment.end_s
        )
        for segment in segments
    ]
    assert sum(found) >= 6, found
