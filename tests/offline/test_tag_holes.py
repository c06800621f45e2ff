"""Holes in files, from the container to the records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import load_card
from perceiverd.offline import tag
from perceiverd.offline.tag import TagOptions
from perceiverd.pipeline.tagger import Tagger
from perceiverd.wire.records import FileScores
from tests.support.clips import make_model, write_clip

OPTIONS = TagOptions(top=1, hop_ns=NS_PER_S, batch=4)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    return Tagger(load_card(str(make_model(tmp_path_factory.mktemp("model") / "tiny"))), "cpu")


def lossy(source: Path, target: Path, share: float) -> Path:
    """The same file without this share of its audio packets."""
    rng = np.random.default_rng(1)
    with av.open(str(source)) as whole, av.open(str(target), "w") as torn:
        streams = {stream.index: torn.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            is_lost = packet.stream.type == "audio" and packet.pts and rng.random() < share
            if packet.dts is not None and not is_lost:
                packet.stream = streams[packet.stream.index]
                torn.mux(packet)
    return target


def found(path: Path, tagger: Tagger, conceal_ns: int) -> list[FileScores]:
    records = tag.records(str(path), tagger, replace(OPTIONS, conceal_ns=conceal_ns))
    return [record for record in records if isinstance(record, FileScores)]


def test_lost_packets_cost_no_window_its_audio(
    tmp_path: Path, tagger: Tagger, caplog: pytest.LogCaptureFixture
) -> None:
    """Every window has its audio and says how much of it was filled; without concealment most windows lack it."""
    path = lossy(write_clip(tmp_path / "whole.mkv", video_s=10, audio_s=10), tmp_path / "torn.mkv", 0.1)
    filled, strict = found(path, tagger, NS_PER_S // 5), found(path, tagger, 0)
    assert [record.modalities for record in filled] == [("audio", "video")] * len(filled)
    assert sum(record.filled_ms.get("audio", 0) > 20 for record in filled) > len(filled) // 2
    assert sum(record.missing == {"audio": "hole"} for record in strict) > len(strict) // 2
    assert "holes-filled" in caplog.text and "windows-incomplete" in caplog.text


def test_windows_without_anything_are_counted(tmp_path: Path, tagger: Tagger, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is cut from a hole of seconds in all that a file has, and a line says how many windows that are."""
    whole, torn = write_clip(tmp_path / "whole.mkv", audio_s=12), tmp_path / "torn.mkv"
    with av.open(str(whole)) as source, av.open(str(torn), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None and not 3 < float((packet.pts or 0) * packet.time_base) < 9:
                packet.stream = stream
                target.mux(packet)
    starts_s = [record.start_s for record in found(torn, tagger, NS_PER_S // 5)]
    assert starts_s == sorted(starts_s) and not [start_s for start_s in starts_s if 4 < start_s < 8]
    [line] = [each.getMessage() for each in caplog.records if "missing=all" in each.getMessage()]
    skipped = round(12 - len(starts_s))
    assert f"reason=hole windows={skipped} of=12" in line
