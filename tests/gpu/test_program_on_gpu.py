"""The whole program on a GPU gives what it gives on the CPU. The cases with the CPU show that the tests work."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from perceiverd.bench import latency, load
from perceiverd.config import Config
from perceiverd.config.schema import ModelConfig
from perceiverd.core.media import NS_PER_S
from perceiverd.doctor import model as doctor
from perceiverd.model.card import load_card
from perceiverd.model.cuda.engine import CudaEngine
from perceiverd.model.mixed_batches import grouped_logits
from perceiverd.model.torch_engine import TorchEngine
from perceiverd.offline.folders.run import FolderOptions, tag_into
from perceiverd.offline.tag import TagOptions
from perceiverd.offline.writers.formats import chosen
from perceiverd.pipeline.tagger import Tagger
from tests.gpu_check.accuracy import mixed
from tests.gpu_check.lasting import _Waiting
from tests.support import finetune
from tests.support.clips import make_model, write_clip
from tests.support.devices import DEVICES, GPU
from tests.support.program import Perceiverd

CLOSE = 0.02
"""How far scores in half precision may be from those of the CPU."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny")


def scores(text: str) -> np.ndarray:
    """The scores of all windows, in the order of labels."""
    records = [json.loads(line) for line in text.splitlines()]
    rows = [sorted(each["labels"], key=lambda label: label["index"]) for each in records if each["type"] == "scores"]
    return np.array([[label["score"] for label in row] for row in rows])


@pytest.mark.parametrize("device", DEVICES)
def test_files_have_the_scores_of_the_cpu(perceiverd: Perceiverd, model: Path, tmp_path: Path, device: str) -> None:
    """`tag` gives every label of every window the CPU's score, up to the rounding of half precision."""
    clip = write_clip(tmp_path / "a.mp4", audio_s=6, video_s=4)
    options = ("--model", model, "--format", "jsonl", "--scores", "--top", "527")
    (status, found, err), (_, wanted, _) = (
        perceiverd("tag", clip, *options, "--device", name) for name in (device, "cpu")
    )
    assert (status, err) == (0, "")
    np.testing.assert_allclose(scores(found), scores(wanted), atol=CLOSE)


@pytest.mark.parametrize("device", DEVICES)
def test_measures_are_those_of_the_cpu(perceiverd: Perceiverd, model: Path, tmp_path: Path, device: str) -> None:
    """`eval` measures the same windows, with nearly the same scores."""
    rows = []
    for number in range(4):
        write_clip(tmp_path / f"{'x' * (number + 1)}.wav", audio_s=2)
        rows.append(f"{'x' * (number + 1)}.wav,{('Dog', 'Siren')[number % 2]}")
    (tmp_path / "clips.csv").write_text("file,labels\n" + "\n".join(rows) + "\n")
    found = []
    for name in (device, "cpu"):
        into = tmp_path / f"{name}.json"
        options = ("--model", model, "--device", name, "--draws", "10", "--json", into)
        status, _, err = perceiverd("eval", tmp_path / "clips.csv", *options)
        assert (status, err) == (0, "")
        found.append(json.loads(into.read_text()))
    assert found[0]["units"] == found[1]["units"] == [4]
    brier = [each["models"][0]["measures"]["brier"]["value"] for each in found]
    assert brier[0] == pytest.approx(brier[1], abs=CLOSE)


@pytest.mark.parametrize("device", DEVICES)
def test_the_doctor_times_the_device(model: Path, device: str) -> None:
    """The model runs where the configuration says, and the doctor says how many streams it can serve."""
    gpu, loaded, speed = doctor.check(Config(model=ModelConfig(str(model), device=device, engine="torch")))
    assert loaded.verdict == "ok" and f"runs in torch on {device}" in loaded.what
    assert "can serve" in speed.what
    if device == "cuda":
        assert gpu.verdict == "ok" and torch.cuda.get_device_name() in gpu.what


@GPU
def test_files_at_once_have_the_records_of_the_cpu(model: Path, tmp_path: Path) -> None:
    """Six files in joint batches have the windows and nearly the scores that the CPU gives one after the other."""
    media = tmp_path / "media"
    media.mkdir()
    for number in range(6):
        write_clip(media / f"{'x' * (number + 1)}.wav", audio_s=2 + number)
    card, options = load_card(model), TagOptions(top=527, hop_ns=NS_PER_S, batch=4, sorts=True)
    how = FolderOptions(formats=chosen("jsonl"), settings="s", jobs=6)
    for device in ("cuda", "cpu"):
        report = tag_into(tmp_path / device, [str(media)], Tagger(card, device, engine="torch"), options, how)
        assert (report.tagged, report.failed) == (6, 0)
    for path in (tmp_path / "cpu").glob("*.jsonl"):
        found = scores((tmp_path / "cuda" / path.name).read_text())
        np.testing.assert_allclose(found, scores(path.read_text()), atol=CLOSE)


@GPU
def test_a_daemon_serves_streams(model: Path) -> None:
    """Two live streams have their windows tagged on the GPU."""
    found = load.run(2, 4.0, str(model), "cuda", 1)
    assert found.tagged > found.expected / 2


@GPU
def test_the_engine_is_timed(perceiverd: Perceiverd, model: Path, tmp_path: Path) -> None:
    """`bench` has the GPU's limits, rates, streams and the account of its time."""
    into = tmp_path / "bench.json"
    status, out, err = perceiverd("bench", model, "--device", "cuda", "--rounds", "3", "--json", into)
    assert (status, err) == (0, "")
    (report,) = msgspec.json.decode(into.read_bytes(), type=list[latency.BenchReport])
    assert report.gpu and report.gpu.streams > 0 and report.gpu.account and report.gpu.rates[-1].of_limit > 0
    assert "streams at 4 hops a second" in out


@GPU
def test_a_model_is_fitted_as_on_the_cpu(tmp_path: Path) -> None:
    """`train fit` of a small model gives nearly the weights that the CPU finds."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        finetune.write_sound(tmp_path / f"{name}.wav", rng.uniform(-0.5, 0.5, 16_000))
    finetune.write_manifest(tmp_path / "clips.csv", [("a.wav", "Dog"), ("b.wav", "Siren")])
    make_model(tmp_path / "start", finetune.AUDIO)
    found, wanted = (
        (finetune.fit(tmp_path, tmp_path / device, device=device), finetune.weights(tmp_path / device))[1]
        for device in ("cuda", "cpu")
    )
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=5e-3, rtol=5e-3)


@GPU
def test_a_network_that_no_graph_can_hold_runs_without(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It waits for the device, which a capture refuses: one line in the log, right logits, and no lost device."""
    from perceiverd.bench.gpu import noise_windows

    card = load_card(model)
    engine, windows = CudaEngine(card, torch.device("cuda"), "float32", (1, 4)), mixed(noise_windows(card.geometry, 3))
    engine._graphs._network = _Waiting(engine._graphs._network)  # type: ignore[assignment]
    exact = grouped_logits(TorchEngine(card, "cpu"), windows)
    for _ in range(3):
        np.testing.assert_allclose(engine.submit(windows).logits(), exact, atol=1e-3)
    assert sum("graphs-unusable" in record.message for record in caplog.records) == 1
