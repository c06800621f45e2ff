"""Windows of several files in joint batches: on the engine for GPUs, which here computes on the CPU."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceiverd.core.media import NS_PER_S
from perceiverd.evaluation.evaluate import EvaluationOptions, NamedTagger, evaluate, read_manifest
from perceiverd.model import resilient
from perceiverd.model.card import Card, load_card
from perceiverd.model.resilient import ResilientEngine
from perceiverd.model.torch_engine import TorchEngine
from perceiverd.offline import joint
from perceiverd.offline.folders.outputs import HIDDEN
from perceiverd.offline.folders.run import FolderOptions, tag_into
from perceiverd.offline.joint import JointScorer, SharedScorer, is_joint, jobs_for, shared
from perceiverd.offline.tag import TagOptions
from perceiverd.offline.writers.formats import chosen
from perceiverd.pipeline import tagger as tagger_module
from perceiverd.pipeline.tagger import PendingScores, Tagger
from perceiverd.pipeline.windower import Window
from tests.support.clips import make_model, write_clip
from tests.support.small_devices import LONG_S, SmallDevice, SmallEngine

OPTIONS = TagOptions(top=3, hop_ns=NS_PER_S, batch=4, sorts=True)
HOW = FolderOptions(formats=chosen("jsonl"), settings="s", jobs=5)


class Watched(Tagger):
    """Keeps the sizes of its batches; begins none before so many windows were asked for."""

    def __init__(self, card: Card, small: SmallDevice) -> None:
        with pytest.MonkeyPatch.context() as patch:
            engine = ResilientEngine("cuda:0", partial(SmallEngine, card, small), partial(TorchEngine, card, "cpu"))
            patch.setattr(tagger_module, "load_engine", lambda *_: engine)
            super().__init__(card, "cuda:0")
        self.sizes: list[int] = []
        self.open = threading.Event()
        self.open.set()

    def begin(self, windows: Sequence[Window]) -> PendingScores:
        assert self.open.wait(60)
        self.sizes.append(len(windows))
        return super().begin(windows)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    return load_card(make_model(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six files of 3 to 8 windows, one of them damaged, one with video too."""
    folder = tmp_path_factory.mktemp("media")
    for number in range(4):
        write_clip(folder / f"{'x' * (number + 1)}.wav", audio_s=3 + number)
    write_clip(folder / "seen.mp4", audio_s=8, video_s=8)
    (folder / "bad.mp4").write_bytes(b"\0" * 2000)
    return folder


@pytest.fixture
def gpu(card: Card) -> Watched:
    return Watched(card, SmallDevice(8))


def window(number: int, samples: int = 16_000) -> Window:
    rng = np.random.default_rng(number)
    return Window(number * NS_PER_S, (number + 1) * NS_PER_S, rng.uniform(-1, 1, samples).astype(np.float32), None)


def in_threads(scorer: JointScorer, tagger: Watched, calls: Sequence[Sequence[Window]]) -> list[Any]:
    """The results of calls that all wait before the first batch begins: scores, or the exception."""
    found: list[Any] = [None] * len(calls)

    def call(number: int) -> None:
        try:
            found[number] = scorer.tag(calls[number])
        except Exception as error:
            found[number] = error

    tagger.open.clear()
    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(calls))]
    for number, thread in enumerate(threads):
        thread.start()
        while sum(map(len, calls[: number + 1])) > len(scorer._waiting) + 8:  # the first batch may have been taken
            threading.Event().wait(0.01)
    tagger.open.set()
    for thread in threads:
        thread.join(60)
    return found


def records(out: Path) -> dict[str, list[dict[str, object]]]:
    return {
        path.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(out.rglob("*.jsonl"))
        if HIDDEN not in path.parts
    }


def rounded(found: object) -> object:
    """Without the last digits of scores, which depend on the size of a batch."""
    match found:
        case float():
            return round(found, 4)
        case dict():
            return {key: rounded(value) for key, value in found.items() if key not in ("index", "name", "mid")}
        case list():
            return [rounded(each) for each in found]
    return found


def test_a_gpu_gains_from_joint_batches_and_a_cpu_does_not(card: Card, gpu: Watched) -> None:
    """A tagger on a CPU is asked by one thread after another, with the jobs that it had; on a GPU each core decodes."""
    cpu = Tagger(card, device="cpu")
    assert is_joint(gpu) and not is_joint(cpu)
    assert jobs_for(cpu, 3) == 3 and jobs_for(gpu, 0) >= 1
    with shared(cpu) as one, shared(gpu) as other:
        assert isinstance(one, SharedScorer) and isinstance(other, JointScorer)


def test_files_in_joint_batches_have_the_outputs_of_single_files(
    tmp_path: Path, card: Card, gpu: Watched, media: Path
) -> None:
    """Five files at a time have the records of one at a time, in their order; a bad file costs no other anything."""
    alone = tag_into(tmp_path / "alone", [str(media)], Tagger(card, device="cpu"), OPTIONS, replace(HOW, jobs=1))
    together = tag_into(tmp_path / "together", [str(media)], gpu, OPTIONS, HOW)
    assert (together.tagged, together.failed) == (alone.tagged, alone.failed) == (5, 1)
    found, wanted = records(tmp_path / "together"), records(tmp_path / "alone")
    assert list(found) == list(wanted) and len(found) == 5
    for name, own in wanted.items():
        assert rounded(found[name]) == rounded(own)


def test_calls_share_a_batch_and_large_ones_are_split(card: Card, gpu: Watched) -> None:
    """Windows of several calls fill batches up to the device's limit, in the order of the calls."""
    calls = [[window(10 * call + row) for row in range(count)] for call, count in enumerate((3, 11, 2, 4))]
    with JointScorer(gpu) as scorer:
        found = in_threads(scorer, gpu, calls)
    assert max(gpu.sizes) == 8 and sum(gpu.sizes) == 20 and len(gpu.sizes) < 6
    cpu = Tagger(card, device="cpu")
    for scores, windows in zip(found, calls, strict=True):
        np.testing.assert_allclose(scores, cpu.tag(windows), atol=1e-5)


def test_a_fault_costs_only_its_own_call(card: Card, gpu: Watched) -> None:
    """If a joint batch fails, each call is done alone: the one with a broken window raises, the others have scores."""
    calls = [[window(0), window(1)], [window(2), window(3, samples=77)], [window(4)]]
    with JointScorer(gpu) as scorer:
        first, broken, last = in_threads(scorer, gpu, calls)
    assert isinstance(broken, ValueError)
    cpu = Tagger(card, device="cpu")
    np.testing.assert_allclose(first, cpu.tag(calls[0]), atol=1e-5)
    np.testing.assert_allclose(last, cpu.tag(calls[2]), atol=1e-5)


def test_short_memory_makes_smaller_joint_batches(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the device has room for two windows, batches have two; all calls have their scores."""
    monkeypatch.setattr(resilient, "HOLD_S", LONG_S)
    small = SmallDevice(8)
    gpu = Watched(card, small)
    calls = [[window(10 * call + row) for row in range(4)] for call in range(3)]
    small.free = 2
    with JointScorer(gpu) as scorer:
        found = in_threads(scorer, gpu, calls)
        scorer.tag(calls[0])
    assert gpu.health and gpu.health.batch_limit == 2 and gpu.sizes[-1] == 2
    cpu = Tagger(card, device="cpu")
    for scores, windows in zip(found, calls, strict=True):
        np.testing.assert_allclose(scores, cpu.tag(windows), atol=1e-5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_thread_that_has_failed(gpu: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the thread that drives the GPU ends the calls that wait for it."""

    def end(_: object) -> PendingScores:
        raise SystemExit

    monkeypatch.setattr(joint, "ALIVE_S", 0.05)
    monkeypatch.setattr(gpu, "begin", end)
    with JointScorer(gpu) as scorer, pytest.raises(RuntimeError, match="has failed"):
        scorer.tag([window(0)])


def test_a_scorer_that_has_ended_takes_nothing(gpu: Watched) -> None:
    """A call after the end is an error, not a wait without end."""
    with JointScorer(gpu) as scorer:
        pass
    with pytest.raises(RuntimeError, match="has ended"):
        scorer.tag([window(0)])


def test_a_call_without_windows_does_not_wait(gpu: Watched) -> None:
    """Nobody would ever give it scores, so it is an error at once."""
    with JointScorer(gpu) as scorer, pytest.raises(ValueError, match="no windows"):
        scorer.tag([])


@pytest.mark.parametrize("jobs", [1, 4])
def test_files_of_a_manifest_are_measured_together(
    tmp_path: Path, card: Card, gpu: Watched, media: Path, jobs: int
) -> None:
    """With several files at a time, `eval` has the measures of one at a time, and its failures in the same order."""
    lines = [f"{path},Dog" for path in sorted(media.iterdir())]
    manifest = tmp_path / "clips.csv"
    manifest.write_text("file,labels\n" + "\n".join(lines) + "\n")
    options = EvaluationOptions(manifest, rounds=10, jobs=jobs)
    found = read_manifest(options, [card.labels])
    joint_result = evaluate(found, [NamedTagger("tiny", gpu)], options)
    alone = evaluate(found, [NamedTagger("tiny", Tagger(card, device="cpu"))], replace(options, jobs=1))
    assert joint_result.failures == alone.failures and len(alone.failures) == 1
    assert joint_result.units == alone.units
    for name, interval in alone.models[0].measures.items():
        assert joint_result.models[0].measures[name].value == pytest.approx(interval.value, rel=1e-3)


def test_the_number_of_jobs_has_a_bound(gpu: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each job is a process that decodes, so a machine with many cores does not start hundreds."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(256)))
    assert jobs_for(gpu, 1) == joint.MOST_JOBS
