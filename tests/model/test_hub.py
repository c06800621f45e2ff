"""Importing: from a folder and from a hub on loopback, whole or not at all; and the model at work afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from perceiverd.core.errors import ModelError
from perceiverd.model import hub
from perceiverd.model.card import DEFAULT, load_card
from perceiverd.pipeline.tagger import Tagger
from perceiverd.pipeline.windower import Window
from perceiverd.wire import messages
from perceiverd.wire.client import subscribe
from tests.support.clips import write_clip
from tests.support.program import Start
from tests.support.published import SMALL, write

REPOSITORY = "someone/perceiver"
pytestmark = pytest.mark.timeout(600)  # many processes, each of which loads torch


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "perceiver"
    write(folder, **SMALL)
    return folder


@pytest.fixture
def broken(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(checkpoint, tmp_path / "broken"))


def perceiverd(home: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perceiverd", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_DATA_HOME": str(home), "HF_HOME": str(home / "hf")} | environment,
    )


def told(done: subprocess.CompletedProcess[str]) -> str:
    """Its one line of complaint."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_an_imported_model_is_like_any_other(checkpoint: Path, tmp_path: Path) -> None:
    """It is listed, told of, verified and tags by its name; its labels are Kinetics', and the best scores sum to 1."""
    done = perceiverd(tmp_path, "models", "import", checkpoint, "--licence", "CC-BY-4.0")
    folder = tmp_path / "perceiverd" / "models" / "perceiver"
    assert done.stdout == f"perceiver: 700 labels, CC-BY-4.0, in {folder}\n", done.stderr
    assert sorted(path.name for path in folder.parent.iterdir()) == ["perceiver"]
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in [folder, *folder.iterdir()])
    assert "perceiver            700 labels" in perceiverd(tmp_path, "models", "list").stdout
    assert "one label of all (softmax)" in perceiverd(tmp_path, "models", "info", "perceiver").stdout
    assert "whole" in perceiverd(tmp_path, "models", "verify", "perceiver").stdout
    clip = write_clip(tmp_path / "a.wav", audio_s=1)
    done = perceiverd(tmp_path, "tag", clip, "--model", "perceiver", "--format", "jsonl", "--top", "700")
    first = json.loads(done.stdout.splitlines()[0])
    assert sum(label["score"] for label in first["labels"]) == pytest.approx(1, abs=1e-3)
    assert all(label["mid"].startswith("k700/") for label in first["labels"])


def test_a_daemon_runs_an_imported_model(checkpoint: Path, tmp_path: Path, start: Start) -> None:
    """`run` finds it by the name that it was imported under; the scores of Kinetics' labels sum to 1."""
    hub.install(str(checkpoint), tmp_path / "perceiverd" / "models" / "mine")
    config, log = tmp_path / "c.toml", tmp_path / "log"
    config.write_text("""
        model = { name = "mine", threads = 1 }
        publish = { endpoint = "ipc://labels", top = 700 }
        streams.one.sources = [{ kind = "synthetic" }]
    """)
    process = start("run", "--config", str(config), log=log, XDG_DATA_HOME=str(tmp_path))
    with subscribe(f"ipc://{tmp_path}/labels", (messages.scores_topic("one"),)) as subscription:
        scores = subscription.receive_message(300)  # a busy machine takes long to load torch
    assert isinstance(scores, messages.Scores), log.read_text()
    assert len(scores.labels) == 700 and all(label.mid.startswith("k700/") for label in scores.labels)
    assert sum(label.score for label in scores.labels) == pytest.approx(1, abs=0.05)  # each is rounded
    assert scores.end_s - scores.start_s == pytest.approx(0.12)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, log.read_text()


def test_a_checkpoint_of_other_names_keeps_them(broken: Path, tmp_path: Path) -> None:
    """A checkpoint that was taught other labels, by name, has those, and its card says so."""
    config = broken / "config.json"
    names = {str(index): f"my action {index}" for index in range(700)}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"id2label": names}))
    card = hub.install(str(broken), tmp_path / "into")
    assert (card.labels[699].mid, card.labels[699].name) == ("user/my-action-699", "my action 699")
    assert "700 of them have names" in (card.folder / "README.md").read_text()


def test_a_pickled_checkpoint_is_as_good(checkpoint: Path, tmp_path: Path) -> None:
    """Weights in `pytorch_model.bin` give the same model, byte by byte."""
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(checkpoint / "config.json", pickled)
    torch.save(load_file(checkpoint / "model.safetensors"), pickled / "pytorch_model.bin")
    one, other = hub.install(str(checkpoint), tmp_path / "one"), hub.install(str(pickled), tmp_path / "other")
    assert one.sha256 == other.sha256


def test_the_model_scores_sound_and_sight(checkpoint: Path, tmp_path: Path) -> None:
    """Windows with both modalities and with one are scored together; every window's scores sum to 1."""
    card = hub.install(str(checkpoint), tmp_path / "model")
    audio, video = card.geometry.audio, card.geometry.video
    assert audio and video
    rng = np.random.default_rng(0)
    sound = rng.uniform(-1, 1, audio.samples).astype(np.float32)
    sight = rng.integers(0, 256, (video.frames, video.height, video.width, 3), dtype=np.uint8)
    scores = Tagger(card, "cpu").tag([Window(0, 1, sound, sight), Window(0, 1, None, sight), Window(0, 1, sound, None)])
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert np.abs(scores[0] - scores[1]).max() > 0


def refused(source: Path, into: Path) -> str:
    """What is told of a checkpoint that can't be used; nothing of it stays."""
    with pytest.raises(ModelError) as error:
        hub.install(str(source), into)
    assert not into.exists() and list(into.parent.glob(f".{into.name}*")) == []
    assert "\n" not in str(error.value)
    return str(error.value)


def test_wrong_tensors_leave_nothing(broken: Path, tmp_path: Path) -> None:
    """A tensor too many is told with the folder, and no model is there afterwards."""
    weights = broken / "model.safetensors"
    save_file(load_file(weights) | {"more": torch.zeros(1)}, weights)
    assert refused(broken, tmp_path / "into").startswith(f"{broken}: tensor more is not part")


class Run:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_with_code_is_not_run(broken: Path, tmp_path: Path) -> None:
    """A pickle that would run something is refused in a line, and runs nothing."""
    (broken / "model.safetensors").unlink()
    torch.save({"latents": Run(tmp_path / "run")}, broken / "pytorch_model.bin")
    assert "not trusted" in refused(broken, tmp_path / "into")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_files_cut_short_are_refused(broken: Path, tmp_path: Path, name: str, kept: int) -> None:
    """Weights of which a part is missing, or all, are told of in a line."""
    weights = load_file(broken / "model.safetensors")
    (broken / "model.safetensors").unlink()
    path = broken / name
    save_file(weights, path) if name.endswith("safetensors") else torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:kept])
    assert "cut short" in refused(broken, tmp_path / "into")


@pytest.mark.parametrize(
    "spoilt",
    [
        {"latents": torch.zeros(3).to_sparse()},
        {"latents": torch.zeros(3, device="meta")},
        {3: torch.zeros(3), "latents": torch.zeros(3)},
        {"latents": [torch.zeros(3)]},
        torch.zeros(3),
    ],
    ids="sparse meta number list tensor".split(),
)
def test_a_pickle_of_something_else_is_refused(broken: Path, tmp_path: Path, spoilt: object) -> None:
    """A pickle of tensors that are none of a checkpoint, or of no named tensors, is told of in a line."""
    (broken / "model.safetensors").unlink()
    torch.save(spoilt, broken / "pytorch_model.bin")
    assert str(broken) in refused(broken, tmp_path / "into")


def test_a_corrupted_pickle_is_refused(broken: Path, tmp_path: Path) -> None:
    """Whichever bytes of a pickle of the old form are wrong, it is told of in a line."""
    (broken / "model.safetensors").unlink()
    path = broken / "pytorch_model.bin"
    torch.save({"latents": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        assert str(broken) in refused(broken, tmp_path / "into")


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_latents": 2**62},
        {"num_latents": 2**16 + 1},
        {"image_size": 2**40},
        {"image_size": 2**14},
        {"num_frames": 2**40},
        {"num_frames": 2**13},
        {"num_self_attends_per_block": 2**20},
        {"audio_samples_per_frame": 2**24, "num_frames": 2**10},
    ],
    ids=str,
)
def test_absurd_sizes_are_refused(broken: Path, tmp_path: Path, sizes: dict[str, int]) -> None:
    """A config of sizes that no machine holds is told of in a line before anything of that size is made."""
    config = broken / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"image_size": 56} | sizes))
    assert str(broken) in refused(broken, tmp_path / "into")


def test_a_name_too_long_for_a_folder_is_told(checkpoint: Path, tmp_path: Path) -> None:
    """A model can't be put under a name of 300 letters, which is told in a line."""
    with pytest.raises(ModelError, match="no model can be put here"):
        hub.install(str(checkpoint), tmp_path / ("x" * 300))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model_type": 3}', "\xff"])
def test_a_config_that_is_none_is_refused(broken: Path, tmp_path: Path, text: str) -> None:
    """A config that is no JSON, or holds something else, is told of with its path."""
    (broken / "config.json").write_text(text, "latin-1")
    assert str(broken / "config.json") in refused(broken, tmp_path / "into")


def test_a_folder_without_weights_is_refused(broken: Path, tmp_path: Path) -> None:
    """It is told which files were looked for."""
    (broken / "model.safetensors").unlink()
    assert "neither model.safetensors nor pytorch_model.bin" in refused(broken, tmp_path / "into")


def test_what_is_there_stays(checkpoint: Path, tmp_path: Path) -> None:
    """A folder that is there already is neither changed nor mixed with."""
    (tmp_path / "into").mkdir()
    with pytest.raises(ModelError, match="is there already"):
        hub.install(str(checkpoint), tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


def test_a_bundled_models_name_is_refused(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that would be hidden by one of perceiverd's own is not put on the shelf; elsewhere it may be."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    source = tmp_path / DEFAULT
    source.symlink_to(checkpoint)
    with pytest.raises(ModelError, match="comes with perceiverd"):
        hub.install(str(source))
    assert not (tmp_path / "perceiverd").exists()
    assert hub.install(str(source), tmp_path / "elsewhere").name == DEFAULT


def test_an_interrupted_conversion_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, or a full disk, in the middle of writing leaves neither a model nor a part of one."""
    into = tmp_path / "into"
    for fault, told in ((KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left on device"), ModelError)):

        def stop(*_: object, fault: BaseException = fault) -> None:
            raise fault

        monkeypatch.setattr(hub, "load_network", stop)
        with pytest.raises(told):
            hub.install(str(checkpoint), into)
        assert [path.name for path in tmp_path.iterdir() if "into" in path.name] == []


@contextmanager
def hub_of(folder: Path, *, cut: int | None = None, claimed: str | None = None) -> Iterator[str]:
    """A hub on loopback that has this folder as a repository, as the real one's answers look.

    `cut`: it breaks off a file after so many bytes, each time; `claimed`: the sha256 that it gives for the weights.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = folder / self.path.rpartition("/")[2].partition("?")[0]
            if f"/{REPOSITORY}/resolve/main/" not in self.path or not path.is_file():
                missing = "EntryNotFound" if REPOSITORY in self.path else "RepoNotFound"
                self.reply(404, {"X-Error-Code": missing, "Content-Length": "0"})
                return
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            tag = claimed if claimed and path.suffix != ".json" else digest
            first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            headers = {"ETag": f'"{tag}"', "X-Repo-Commit": "0" * 40, "Content-Length": str(len(data) - first)}
            if path.suffix != ".json":  # as the real one says of all that is large: there is a faster way
                headers["X-Xet-Hash"] = digest
                headers["Link"] = '<http://127.0.0.1:1/xet>; rel="xet-auth"'
            if first:
                headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            self.reply(206 if first else 200, headers)
            if body and cut is not None and path.suffix != ".json":
                self.wfile.write(data[first : first + cut])
                self.close_connection = True
            elif body:
                self.wfile.write(data[first:])

        def reply(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def fetch(home: Path, endpoint: str, repository: str = REPOSITORY) -> subprocess.CompletedProcess[str]:
    return perceiverd(home, "models", "import", f"hf:{repository}", HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0")


def shelf(home: Path) -> list[str]:
    return [path.name for path in (home / "perceiverd" / "models").glob("*")]


def test_a_model_is_fetched_from_a_hub(checkpoint: Path, tmp_path: Path) -> None:
    """Config and weights are fetched, the model is put on the shelf under the public checkpoint's licence."""
    with hub_of(checkpoint) as endpoint:
        done = fetch(tmp_path, endpoint)
    assert done.returncode == 0, done.stderr
    card = load_card(tmp_path / "perceiverd" / "models" / "perceiver")
    assert (card.licence, card.scores) == (hub.LICENCE, "softmax")
    assert "CC BY 4.0" in (card.folder / "README.md").read_text()


def test_a_wrong_sha256_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """Weights that are not those of which the hub gave the sha256 are not converted."""
    with hub_of(checkpoint, claimed="0" * 64) as endpoint:
        done = fetch(tmp_path, endpoint)
    assert "sha256 is" in told(done)
    assert shelf(tmp_path) == []


@pytest.mark.long
def test_an_interrupted_download_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    """Where the hub breaks off, or is gone, that is told in a line; later the import goes on and ends well."""
    with hub_of(checkpoint, cut=1000) as endpoint:
        done = fetch(tmp_path, endpoint)
    assert "cannot be fetched" in told(done)
    assert "the hub can't be reached" in told(fetch(tmp_path, endpoint))  # though it has the config already
    assert shelf(tmp_path) == []
    with hub_of(checkpoint) as endpoint:
        assert fetch(tmp_path, endpoint).returncode == 0
    assert shelf(tmp_path) == ["perceiver"]


@pytest.mark.parametrize(
    ("kept", "says"),
    [("config.json", "has neither model.safetensors nor pytorch_model.bin"), ("model.safetensors", "no config.json")],
)
def test_a_repository_of_something_else_is_told(checkpoint: Path, tmp_path: Path, kept: str, says: str) -> None:
    """A repository that lacks weights, or a config, is told by what it lacks."""
    (tmp_path / "other").mkdir()
    shutil.copy(checkpoint / kept, tmp_path / "other")
    with hub_of(tmp_path / "other") as endpoint:
        assert says in told(fetch(tmp_path, endpoint))


@pytest.mark.long
def test_a_repository_that_is_none_is_told(checkpoint: Path, tmp_path: Path) -> None:
    """A name that the hub doesn't know, one that can't be one, and a hub that isn't there are told in a line."""
    with hub_of(checkpoint) as endpoint:
        assert "cannot be fetched" in told(fetch(tmp_path, endpoint, "no/one"))
        assert "cannot be fetched" in told(fetch(tmp_path, endpoint, "a/b/c"))
    assert "the hub can't be reached" in told(fetch(tmp_path, endpoint))
