"""Fitting one's own clips: new labels are learnt and old ones kept; the same twice, after a stop, and in company."""

from __future__ import annotations

import csv
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from perceiverd.core.errors import ConfigError, MediaError, ModelError
from perceiverd.core.labels import Label, ontology
from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import load_card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.geometry import Audio, Geometry, Trunk
from perceiverd.model.perceiver import Perceiver
from perceiverd.pipeline.windower import Windower
from perceiverd.sources.decode import container
from perceiverd.training.distill import rehearsal
from perceiverd.training.finetune import clip_cache, evaluate, finetune, job, manifest, settings
from perceiverd.training.finetune.clip_cache import ClipCache, DecodedClip
from perceiverd.training.finetune.job import Wish
from perceiverd.training.finetune.manifest import ManifestRow
from perceiverd.training.finetune.sampling import ClipSampler, Vocabulary, shuffled_order
from perceiverd.training.finetune.settings import AugmentSettings
from perceiverd.training.fitting.distributed import ProcessGroup
from perceiverd.training.fitting.loop import StoppedError
from perceiverd.training.fitting.progress import progress_reporter
from tests.support.clips import GEOMETRY as BOTH
from tests.support.clips import make_model, write_clip

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "configs" / "train-audioset.toml"
RATE_HZ = 16_000
EAR = Geometry(
    classes=527,
    trunk=Trunk(latents=3, width=8, cross_attends=1, layers=1, heads=2),
    audio=Audio(rate_hz=RATE_HZ, samples=4_000, form="raw", patch=(100,), bands=2),
)
NEW = """
[geometry]
classes = 527
[geometry.trunk]
latents = 3
width = 8
cross_attends = 1
layers = 1
heads = 2
[geometry.audio]
rate_hz = 16000
samples = 4000
form = "raw"
patch = [100]
bands = 2
[fit]
epochs = 2
batch = 5
slice = 2
"""


def write_sound(path: Path, samples: np.ndarray) -> Path:
    """A sound file of samples within ±1 at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def write_manifest(path: Path, lines: list[tuple[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file", "labels"), *lines])
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of sounds, and twelve clips of two that AudioSet lacks, loud buzz and faint hiss; as many to hold out."""
    folder = tmp_path_factory.mktemp("home")
    make_model(folder / "start", EAR)
    (folder / "start" / "calibration.tsv").write_text(
        f"mid\tname\tscale\tshift\tthreshold\n{DOG}\tDog\t2.0\t0.5\t0.25\n"
    )
    rng = np.random.default_rng(0)
    for listed, prefix in (("clips.csv", ""), ("held.csv", "held-")):
        lines = []
        for number in range(12):
            name, label = f"{prefix}{number}.wav", ("Loud buzz", "Faint hiss")[number % 2]
            tone = 0.6 * np.sign(np.sin(2 * np.pi * rng.uniform(90, 110) * np.arange(12_000) / RATE_HZ))
            write_sound(folder / name, tone if number % 2 == 0 else rng.normal(0, 0.02, 12_000))
            lines.append((name, label))
        write_manifest(folder / listed, lines)
    return folder


DOG = "/m/0bt9lr"


def wish(home: Path, out: Path, **more: object) -> Wish:
    """Fit the two sounds, with everything that is kept beside `out`."""
    base = Wish(clips=home / "clips.csv", out=out, start=f"{home}/start", shelf=home / "cache", threads=1, device="cpu")
    return Wish(**{**{name: getattr(base, name) for name in Wish.__dataclass_fields__}, **more})


def weights(model: Path) -> dict[str, Tensor]:
    return load_file(model / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    return all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(one).items())


# ---------------------------------------------------------------------------------------------- clips
def test_windows_of_kept_clips_are_those_of_files(tmp_path: Path) -> None:
    """A clip from the shelf gives the windows that the file itself gives, to the rounding of 16 bits."""
    file = write_clip(tmp_path / "film.mkv", video_s=3.4, audio_s=3.4)
    windower, direct = Windower(BOTH, NS_PER_S // 2, clip_cache.PATIENCE), []
    for item in container.read(file, BOTH.media_format):
        direct += windower.push(item)
    direct += windower.flush()
    ((_, place),) = ClipCache(tmp_path / "cache", BOTH).fill([ManifestRow(0, file, 0, None, ())], 1)
    assert isinstance(place, Path)
    kept = clip_cache.load(place).windows(BOTH, NS_PER_S // 2)
    assert [window.start_ns for window in kept] == [window.start_ns for window in direct]
    for one, other in zip(kept, direct, strict=True):
        assert one.audio is not None and other.audio is not None and one.video is not None and other.video is not None
        np.testing.assert_allclose(one.audio, other.audio, atol=1 / 32_768)
        np.testing.assert_array_equal(one.video, other.video)


def test_any_window_of_a_clip_can_be_cut() -> None:
    """Wherever a window is asked for, it begins there, to the sample, with the nearest pictures."""
    samples = np.arange(-16_000, 32_000)
    frames = np.broadcast_to(np.arange(30, dtype=np.uint8)[:, None, None, None], (30, 24, 32, 3))
    take = DecodedClip(
        16_000, samples.astype(np.int16), np.array([[0, 0, 48_000]]), frames, np.arange(30) * NS_PER_S // 10, 1.0
    )
    for start_s in (0.0, 0.03, 0.5, 1.25, 2.0):
        window = take.window(BOTH, round(start_s * NS_PER_S))
        assert window is not None and window.audio is not None and window.video is not None
        assert abs(window.audio[0] * 32_768 + 16_000 - start_s * 16_000) <= 0.0625 * 16_000
        assert abs(int(window.video[0, 0, 0, 0]) - 10 * window.start_ns / NS_PER_S) <= 1


def test_clips_of_one_file_are_cut_apart(tmp_path: Path) -> None:
    """Lines of one file each get their own stretch; the file's end may come first, its lack of one is told."""
    ramp = np.linspace(-0.9, 0.9, 3 * RATE_HZ)
    file = write_sound(tmp_path / "ramp.wav", ramp)
    lines = [ManifestRow(2, file, 0.5, 1.0, ()), ManifestRow(3, file, 2.5, 9.0, ()), ManifestRow(4, file, 5, 6, ())]
    first, second, third = clip_cache.decode(file, lines, EAR.media_format)
    assert isinstance(first, DecodedClip) and isinstance(second, DecodedClip) and isinstance(third, MediaError)
    np.testing.assert_allclose(first.pcm / 32_768, ramp[8_000:16_000], atol=1e-3)
    np.testing.assert_allclose(second.pcm / 32_768, ramp[40_000:], atol=1e-3)
    assert "nothing to hear or see from 5 s to 6 s" in str(third)


def test_a_file_named_by_id_may_be_the_clip(tmp_path: Path) -> None:
    """AudioSet's clip of 30 to 40 s is all of a file that lasts 10 s, and a part of one that lasts longer."""
    short = write_sound(tmp_path / "short.wav", np.zeros(10 * RATE_HZ) + 0.1)
    long = write_sound(tmp_path / "long.wav", np.zeros(45 * RATE_HZ) + 0.1)
    for file in (short, long):
        (take,) = clip_cache.decode(file, [ManifestRow(1, file, 30, 40, (), cut=True)], EAR.media_format)
        assert isinstance(take, DecodedClip) and take.end_ns == 10 * NS_PER_S


def test_what_is_kept_is_not_decoded_again(tmp_path: Path) -> None:
    """A second look at the same bytes under another name opens no media, and finds the same file."""
    file = write_sound(tmp_path / "one.wav", np.zeros(8_000) + 0.1)
    shelf = ClipCache(tmp_path / "cache", EAR)
    ((_, first),) = shelf.fill([ManifestRow(2, file, 0, None, ())], 1)
    assert isinstance(first, Path)
    written = first.stat().st_mtime_ns
    ((_, again),) = shelf.fill([ManifestRow(2, file.rename(tmp_path / "two.wav"), 0, None, ())], 1)
    assert again == first and first.stat().st_mtime_ns == written


# ---------------------------------------------------------------------------------------------- draws
def test_every_clip_has_its_turn() -> None:
    """An epoch has each clip once, in an order of its own; however it is asked for, the sequence is the same."""
    whole = list(shuffled_order(3, 7, 0, 21))
    assert [sorted(index for index, epoch in whole if epoch == number) for number in range(3)] == [list(range(7))] * 3
    assert [index for index, _ in whole[:7]] != [index for index, _ in whole[7:14]]
    assert [*shuffled_order(3, 7, 0, 5), *shuffled_order(3, 7, 5, 16)] == whole


def test_a_draw_depends_on_its_number_alone(home: Path) -> None:
    """The same clip and number give the same window, another number another one."""

    def draws() -> ClipSampler:
        lines = manifest.read(home / "clips.csv", ontology().labels)
        vocabulary = Vocabulary([*ontology().labels, *lines.new], lines.named, old=527)
        return ClipSampler(lines.lines, None, EAR, vocabulary, AugmentSettings(), seed=4, skip=0)

    one, other = draws().draw(3, 1), draws().draw(3, 1)
    assert one.audio is not None and other.audio is not None
    np.testing.assert_array_equal(one.audio, other.audio)
    again = draws().draw(3, 2).audio
    assert again is not None and not np.array_equal(one.audio, again)


def test_labels_say_what_is_known() -> None:
    """A clip's labels and those above are there, the manifest's other ones aren't, the rest is open."""
    labels = [*ontology().labels, Label(527, "user/rex", "Rex")]
    place = {label.name: label.index for label in labels}
    named = [label.mid for label in labels if label.name in ("Dog", "Bark", "Rain", "Rex")]
    vocabulary = Vocabulary(labels, named, old=527)
    targets, counts = vocabulary.targets([labels[place["Bark"]].mid])
    assert [targets[place[name]] for name in ("Bark", "Dog", "Rain", "Rex")] == [1, 1, 0, 0]
    assert np.isnan(targets[place["Animal"]]) and counts.all()
    targets, counts = vocabulary.targets([DOG])
    assert counts[place["Bark"]] == 0 and targets[place["Dog"]] == 1 and counts[place["Dog"]] == 1
    targets, _ = vocabulary.targets([])
    assert np.isnan(targets[:527]).all() and targets[527] == 0


# ---------------------------------------------------------------------------------------------- labels alone
def test_new_labels_are_learnt_and_old_ones_kept(home: Path, tmp_path: Path) -> None:
    """Two new sounds are told apart; every old row, and the old calibration, is what it was, to the bit."""
    told = job.run(wish(home, tmp_path / "new", held_out=home / "held.csv"))
    card, start = load_card(tmp_path / "new"), load_card(home / "start")
    assert card.labels == (
        *start.labels,
        Label(527, "user/loud-buzz", "Loud buzz"),
        Label(528, "user/faint-hiss", "Faint hiss"),
    )
    assert card.calibration[: len(start.labels)] == start.calibration and card.licence == start.licence
    assert [one.threshold for one in card.calibration[len(start.labels) :]] == [0.4, 0.4]
    before, after = weights(home / "start"), weights(tmp_path / "new")
    for name, tensor in before.items():
        assert torch.equal(after[name][: len(tensor)] if name.startswith("head.out") else after[name], tensor), name
    # Nothing before the last layer ever learnt: it knows what it was taught, and others better than by chance.
    taught = manifest.read(home / "clips.csv", card.labels)
    heard = evaluate.score_clips(taught, [card, start], home / "cache", device="cpu", threads=1)
    learnt = evaluate.report(heard, card, [527, 528], start)
    assert "| Loud buzz | 6 | 1.000 |" in learnt and "| Faint hiss | 6 | 1.000 |" in learnt
    found = re.findall(r"\| (?:Loud buzz|Faint hiss) \| 6 \| ([\d.]+) \|", told)
    assert len(found) == 2 and min(map(float, found)) > 0.6
    assert "| Loud buzz | `user/loud-buzz` | yes | 6 |" in (tmp_path / "new" / "README.md").read_text()


def test_a_fitted_model_can_be_fitted_again(home: Path, tmp_path: Path) -> None:
    """A model's own classes are labels like others when it is started from; only new names add classes."""
    job.run(wish(home, tmp_path / "new", epochs=3))
    more = write_manifest(home / "more.csv", [("0.wav", "loud buzz"), ("1.wav", "Kettle song"), ("3.wav", "Dog")])
    job.run(wish(home, tmp_path / "newer", clips=more, start=f"{tmp_path}/new", epochs=3))
    assert [label.name for label in load_card(tmp_path / "newer").labels[527:]] == [
        "Loud buzz",
        "Faint hiss",
        "Kettle song",
    ]
    first, second = weights(tmp_path / "new")["head.out.weight"], weights(tmp_path / "newer")["head.out.weight"]
    changed = {int(row) for row in (first != second[:529]).any(dim=1).nonzero()}
    assert changed == {527, next(label.index for label in ontology().labels if label.name == "Dog")}


def test_a_long_rehearsal_is_drawn_from_all_along(home: Path, tmp_path: Path) -> None:
    """An hour without the new sounds gives as many windows as short clips of the same length would."""
    (tmp_path / "hours").mkdir()
    write_sound(tmp_path / "hours" / "night.wav", np.random.default_rng(0).normal(0, 0.1, 16_000 * 120))
    write_sound(tmp_path / "hours" / "short.wav", np.random.default_rng(1).normal(0, 0.1, 16_000 * 2))
    task, _ = job._task(wish(home, tmp_path / "new", rehearse=(tmp_path / "hours",)), torch.device("cpu"))
    with progress_reporter(None, silent=True) as teller:
        others = finetune._Fit(task, ProcessGroup(0, 1), teller).others
    assert task.start
    each_s = finetune.VIEWS * task.start.geometry.window_ns / 1e9
    assert [line.file.name for line in others.lines] == ["night.wav"] * int(120 // each_s) + ["short.wav"]
    one, other = others.draw(0, 0).audio, others.draw(1, 0).audio
    assert one is not None and other is not None and not np.array_equal(one, other)


def test_what_a_model_learnt_from_keeps_new_labels_quiet(home: Path, tmp_path: Path) -> None:
    """New labels say less of what the bank beside a model holds than they would without it."""
    card = load_card(make_model(tmp_path / "start", EAR))
    network, _ = rehearsal.headless(load_network(card))
    with torch.inference_mode():
        remembered = rehearsal.rendered(network, EAR.audio)
    torch.manual_seed(0)
    far = remembered[:1] + 30 * torch.randn(64, 8)
    rehearsal.write(tmp_path / "start" / rehearsal.BANK_FILE, far, network)
    for name, weight in (("with", 1.0), ("without", 0.0)):
        recipe = tmp_path / f"{name}.toml"
        recipe.write_text(f"[fit]\nrehearsal = {weight}\n")
        job.run(wish(home, tmp_path / name, start=f"{tmp_path}/start", recipe=recipe))
    said = {}
    for name in ("with", "without"):
        found = weights(tmp_path / name)
        said[name] = float((far @ found["head.out.weight"][527:].T + found["head.out.bias"][527:]).sigmoid().mean())
    assert said["with"] < said["without"]
    job.run(wish(home, tmp_path / "again", start=f"{tmp_path}/with", epochs=2))  # its bank holds for it too
    rehearsal.write(tmp_path / "with" / rehearsal.BANK_FILE, far, torch.nn.Linear(2, 2))
    with pytest.raises(ModelError, match="made of other weights"):
        job.run(wish(home, tmp_path / "other", start=f"{tmp_path}/with", epochs=2))


# ---------------------------------------------------------------------------------------------- all
def test_all_of_a_model_is_fitted_and_old_labels_held(home: Path, tmp_path: Path) -> None:
    """The whole network moves, a little, and what it says of old labels hardly."""
    job.run(wish(home, tmp_path / "new", train="all", rehearse=(home / "start",), skip=1.0, epochs=5))
    before, after = weights(home / "start"), weights(tmp_path / "new")
    moved = [name for name, tensor in before.items() if not torch.equal(after[name][: len(tensor)], tensor)]
    assert len(moved) > len(before) / 2
    assert max(float((after[name][: len(tensor)] - tensor).abs().max()) for name, tensor in before.items()) < 0.05


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Of a new model, a tiny one."""
    path = tmp_path / "new.toml"
    path.write_text(NEW)
    return path


def test_a_new_model_is_the_same_twice(home: Path, tmp_path: Path, recipe: Path) -> None:
    """Two runs of a recipe with one seed give the same weights, bit for bit; another seed gives others."""
    for name, seed in (("one", 1), ("other", 1), ("third", 2)):
        job.run(wish(home, tmp_path / name, start=None, recipe=recipe, seed=seed))
    assert same(tmp_path / "one", tmp_path / "other")
    assert not same(tmp_path / "one", tmp_path / "third")


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], None]]:
    """Makes Ctrl-C be pressed at a call of a learner's `backward`."""
    from perceiverd.training.finetune import learners

    def press(kind: str, at: int) -> None:
        learner = getattr(learners, kind)
        backward = learner.backward

        def pressed(self: object, step: int, scaler: object) -> dict[str, float]:
            if step == at:
                signal.raise_signal(signal.SIGINT)
            figures: dict[str, float] = backward(self, step, scaler)
            return figures

        monkeypatch.setattr(learner, "backward", pressed)

    yield press
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(("train", "kind"), [("head", "HeadLearner"), ("all", "NetworkLearner")])
def test_a_fit_that_was_stopped_goes_on(
    home: Path, tmp_path: Path, interrupted: Callable[[str, int], None], train: str, kind: str
) -> None:
    """Ctrl-C finishes the step and keeps all; resumed, the fit ends with the very weights of one that ran through."""
    job.run(wish(home, tmp_path / "through", train=train, epochs=4))
    with pytest.MonkeyPatch.context():
        interrupted(kind, 0)
        with pytest.raises(StoppedError, match="stopped after 1 steps; the same command with --resume goes on"):
            job.run(wish(home, tmp_path / "stopped", train=train, epochs=4))
    assert not (tmp_path / "stopped").exists()
    with pytest.raises(ConfigError, match="go on with --resume"):
        job.run(wish(home, tmp_path / "stopped", train=train, epochs=4))
    with pytest.raises(ConfigError, match="other clips, labels or settings"):
        job.run(wish(home, tmp_path / "stopped", train=train, epochs=4, seed=2, resume=True))
    job.run(wish(home, tmp_path / "stopped", train=train, epochs=4, resume=True))
    assert same(tmp_path / "through", tmp_path / "stopped")


@pytest.mark.timeout(400)  # a busy machine takes its time to start Python and torch three times
@pytest.mark.parametrize("new", [False, True], ids=["head", "new"])
def test_two_processes_are_as_one(home: Path, tmp_path: Path, recipe: Path, new: bool) -> None:
    """Under torchrun, two processes give the weights of one with the same global batch, to rounding."""
    origin = {"start": None, "recipe": recipe} if new else {"epochs": 10.0}
    held = None if new else home / "held.csv"
    told = job.run(wish(home, tmp_path / "one", held_out=held, **origin))
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "perceiverd", "train", "fit"]
    more = ["--recipe", recipe] if new else ["--from", f"{home}/start", "--epochs", 10, "--held-out", held]
    kept = ["--manifest", home / "clips.csv", "--out", tmp_path / "two", "--cache", home / "cache"]
    command = [sys.executable, "-m", *launcher, *map(str, [*kept, *more, "--threads", 1, "--device", "cpu"])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=380, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == told.split()
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in one.items():
        # No softmax heeds a bias of its keys: its gradient is rounding alone, of which Adam makes whole steps.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(two[name], tensor, atol=2e-5, rtol=1e-4)


# ---------------------------------------------------------------------------------------------- what can go wrong
def test_unreadable_clips_are_counted_and_skipped(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A clip that is none is told of with its line and left out; too many of them end the fit before it begins."""
    (home / "text.wav").write_text("not a sound")
    rows = [(f"{number}.wav", "Loud buzz") for number in range(4)]
    some = write_manifest(home / "some.csv", [*rows, ("text.wav", "Loud buzz")])
    with caplog.at_level(logging.WARNING):
        job.run(wish(home, tmp_path / "new", clips=some, skip=0.2, epochs=2))
    assert "some.csv: line 6:" in caplog.text
    with pytest.raises(MediaError, match=r"some\.csv: line 6: .*text\.wav"):
        job.run(wish(home, tmp_path / "other", clips=some, skip=0.1))


def test_clips_decoded_anew_may_fail_too(home: Path, tmp_path: Path) -> None:
    """Without a shelf a clip that can't be read is replaced by the next, up to the share that may be."""
    (home / "text.wav").write_text("not a sound")
    some = write_manifest(
        home / "anew.csv", [("text.wav", "Loud buzz"), ("0.wav", "Loud buzz"), ("1.wav", "Faint hiss")]
    )
    path = tmp_path / "anew.toml"
    path.write_text(NEW + "[clips]\nkeep = false\n")
    job.run(wish(home, tmp_path / "new", clips=some, start=None, recipe=path, skip=0.5))
    with pytest.raises(MediaError, match="1 of 3 clips can't be read"):
        job.run(wish(home, tmp_path / "other", clips=some, start=None, recipe=path, skip=0.1))


def test_what_cannot_be_is_refused_at_once(home: Path, tmp_path: Path, recipe: Path) -> None:
    """Another model's place, two origins, a label that isn't taught, no label at all, a recipe of other classes."""
    with pytest.raises(ConfigError, match="is a model already"):
        job.run(wish(home, home / "start"))
    with pytest.raises(ConfigError, match="has a geometry, for a new model"):
        job.run(wish(home, tmp_path / "new", recipe=recipe))
    other = write_manifest(home / "other.csv", [("0.wav", "Washing line")])
    with pytest.raises(ConfigError, match="'Washing line' is no label that"):
        job.run(wish(home, tmp_path / "new", held_out=other))
    shutil.copy(home / "3.wav", tmp_path / "renamed.wav")
    twice = write_manifest(tmp_path / "twice.csv", [(f"{home}/held-1.wav", ""), ("renamed.wav", "Faint hiss")])
    with pytest.raises(ConfigError, match=r"twice.csv: line 3: .*renamed.wav is learnt from too \(line 5 of"):
        job.run(wish(home, tmp_path / "new", held_out=twice))
    (tmp_path / "others").mkdir()
    shutil.copy(home / "held-1.wav", tmp_path / "others")
    with pytest.raises(ConfigError, match=r"line 3: .*held-1.wav is learnt from too \(.*others/held-1.wav, for --reh"):
        job.run(wish(home, tmp_path / "new", held_out=home / "held.csv", rehearse=(tmp_path / "others",)))
    bare = write_manifest(home / "bare.csv", [("0.wav", "")])
    with pytest.raises(ConfigError, match="no clip has a label"):
        job.run(wish(home, tmp_path / "new", clips=bare))
    recipe.write_text(NEW.replace("527", "10"))
    with pytest.raises(ConfigError, match=r"\$\.geometry\.classes is 527"):
        job.run(wish(home, tmp_path / "new", start=None, recipe=recipe))
    with pytest.raises(ConfigError, match="float16 is for GPUs"):
        job.run(wish(home, tmp_path / "new", precision="float16"))


def test_an_unknown_setting_is_told(tmp_path: Path) -> None:
    """A recipe's wrong key is an error that says what may have been meant."""
    path = tmp_path / "recipe.toml"
    path.write_text("[fit]\noptimizer = 'lamb'\n")
    with pytest.raises(ConfigError, match=r"\$\.fit\.optimizer: no such option; did you mean `optimiser`\?"):
        settings.load(path)


# ---------------------------------------------------------------------------------------------- the paper's recipe
def test_the_papers_recipe_is_as_it_says() -> None:
    """It has the paper's sizes and 21.0 million parameters, names every setting, marks what is not the default."""
    found = settings.load(RECIPE)
    assert found.geometry is not None
    assert [(part.name, part.tokens) for part in found.geometry.modalities] == [("audio", 480), ("video", 12_544)]
    with torch.device("meta"):
        network = Perceiver(found.geometry.modalities, found.geometry.trunk, found.geometry.classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(21.0e6, rel=0.005)
    assert network.bytes.width == 487
    text = RECIPE.read_text()
    for name, section in (("fit", found.fit), ("clips", found.clips), ("augment", found.augment)):
        written = text.partition(f"[{name}]")[2].partition("\n[")[0]
        for field in msgspec.structs.fields(type(section)):
            (line,) = [line for line in written.splitlines() if line.startswith(f"{field.name} =")]
            assert ("not the default" in line) == (getattr(section, field.name) != field.default), line


def test_the_papers_other_variant_is_a_geometry(tmp_path: Path) -> None:
    """The mel variant in its comments can be taken in place of the raw one."""
    text = RECIPE.read_text()
    raw = text[text.index("[geometry.audio]\n") : text.index("# mel: ")]
    path = tmp_path / "mel.toml"
    path.write_text(text.replace(raw, "").replace("# mel: ", ""))
    geometry = settings.load(path).geometry
    assert geometry is not None and geometry.audio is not None
    assert (geometry.audio.form, geometry.modalities[0].tokens) == ("mel", 2_048)


@pytest.mark.parametrize("optimiser", ["lamb", "adamw"])
def test_the_papers_recipe_runs_end_to_end(tmp_path: Path, optimiser: str) -> None:
    """On generated clips in AudioSet's form, with a tiny geometry in place of its own, a few steps make a model."""
    media = tmp_path / "media"
    media.mkdir()
    rows = ["# YTID, start_seconds, end_seconds, positive_labels"]
    for number in range(3):
        write_clip(media / f"abcdefghij{number}_10000.mp4", video_s=1.5, audio_s=1.5 if number else 0)
        rows.append(f'abcdefghij{number}, 10.000, 20.000, "{DOG},/m/0jbk"')
    (tmp_path / "segments.csv").write_text("\n".join(rows) + "\n")
    text = RECIPE.read_text()
    tiny = "\n".join(
        [
            "classes = 527\n[geometry.trunk]\nlatents = 3\nwidth = 8\ncross_attends = 1\nlayers = 1\nheads = 2",
            '[geometry.audio]\nrate_hz = 48000\nsamples = 15360\nform = "raw"\npatch = [128]\nbands = 2',
            "[geometry.video]\nframes = 8\nfps = 25.0\nheight = 16\nwidth = 16\npatch = [2, 8, 8]\nbands = 2\n",
        ]
    )
    start, end = text.index("classes = 527"), text.index("[fit]")
    (tmp_path / "recipe.toml").write_text((text[:start] + tiny + text[end:]).replace('"lamb"', f'"{optimiser}"'))
    job.run(
        Wish(
            clips=tmp_path / "segments.csv",
            out=tmp_path / "new",
            media=media,
            recipe=tmp_path / "recipe.toml",
            epochs=4,
            batch=3,
            device="cpu",
            threads=1,
            logs=tmp_path / "curves",
        )
    )
    card = load_card(tmp_path / "new")
    assert len(card.labels) == 527 and card.licence == "NOASSERTION"
    assert list((tmp_path / "curves").glob("events.out.tfevents.*"))
