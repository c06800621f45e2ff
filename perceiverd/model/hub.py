"""Imports public checkpoints: fetches them from the Hugging Face hub or reads a folder, converts and saves them.

A model appears complete or not at all: it is made in a temporary folder, which is renamed at the end.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from perceiverd import __version__
from perceiverd.core.errors import ModelError, PerceiverdError
from perceiverd.core.labels import KINETICS, Label
from perceiverd.model.card import Card, bundled, imports_folder, load_card, read_labels
from perceiverd.model.checkpoint import load_network, save_model
from perceiverd.model.convert import HubConfig, convert, labels_of
from perceiverd.model.geometry import Geometry
from perceiverd.model.perceiver import Perceiver

PREFIX = "hf:"
LICENCE = "Apache-2.0 AND CC-BY-4.0"
"""Of the public checkpoint: its page on the hub states the first, DeepMind states the second for the parameters."""
UNKNOWN_LICENCE = "LicenseRef-unknown"
CONFIG_FILE, WEIGHTS_FILES = "config.json", ("model.safetensors", "pytorch_model.bin")
NO_WEIGHTS = f"found neither {' nor '.join(WEIGHTS_FILES)}"


def install(source: str, into: Path | None = None, licence: str | None = None) -> Card:
    """Convert `hf:OWNER/NAME` or a folder into the model folder `into`, or into the user's folder of imported models.

    Raises ModelError if the checkpoint cannot be used or the folder exists; then nothing is left behind.
    """
    public = source.startswith(PREFIX)
    name = Path(source.removeprefix(PREFIX).rstrip("/")).name or "model"
    into = imports_folder() / name if into is None else into
    _check_target(into)
    folder = _fetched(source.removeprefix(PREFIX)) if public else Path(source)
    geometry, network, labels = _converted(folder)
    licence = licence or (LICENCE if public else UNKNOWN_LICENCE)
    with _complete_or_nothing(into) as made:
        save_model(made, network, geometry, labels, name=name, licence=licence, scores="softmax")
        readme = _readme(name, source if public else folder.name, licence, geometry, labels)
        (made / "README.md").write_text(readme, "utf-8")
        load_network(load_card(made))
    return load_card(into)


def _check_target(into: Path) -> None:
    """Raises ModelError if no model may be put there."""
    if into.parent == imports_folder() and into.name in bundled():
        raise ModelError(f"{into.name}: a bundled model has this name and would hide yours; choose a name with --into")
    try:
        if into.exists():
            raise ModelError(f"{into}: already exists; remove it, or choose another folder with --into")
    except OSError as error:  # a name too long for a folder
        raise ModelError(f"{into}: cannot save a model here: {error.strerror}") from error


def _converted(folder: Path) -> tuple[Geometry, Perceiver, tuple[Label, ...]]:
    """The checkpoint in this folder as a network of ours, with its labels."""
    config, weights = _config(folder / CONFIG_FILE), _weights(folder)
    try:
        geometry, network = convert(config, weights)
        return geometry, network, labels_of(config, read_labels(KINETICS))
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from error


@contextmanager
def _complete_or_nothing(into: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `into` at the end, or removed after an error."""
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{into.name}.", dir=into.parent))
    except OSError as error:
        raise ModelError(f"{into.parent}: cannot save a model here: {error.strerror}") from error
    try:
        yield made
        made.chmod(0o755)  # mkdtemp makes it 0700, so the service's user could not read it
        made.rename(into)
    except OSError as error:
        raise ModelError(f"{into}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


# ------------------------------------------------------------------------------------------------ reading
def _config(path: Path) -> HubConfig:
    try:
        return msgspec.json.decode(path.read_bytes(), type=HubConfig)
    except OSError as error:
        raise ModelError(f"{path}: cannot read the checkpoint's config: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not the config of a Perceiver ({error})") from error


def _weights(folder: Path) -> Mapping[str, Tensor]:
    """The checkpoint's tensors. Code in a pickle is not run."""
    for name in WEIGHTS_FILES:
        path = folder / name
        if path.exists():
            return _tensors(path) if path.suffix == ".safetensors" else _unpickled(path)
    raise ModelError(f"{folder}: {NO_WEIGHTS}")


def _tensors(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a safetensors file, or incomplete ({_first_line(error)})") from error


def _unpickled(path: Path) -> Mapping[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path}: has more than tensors in it, which perceiverd does not trust") from error
    except Exception as error:  # IndexError, AssertionError, TypeError, ...: it depends on which byte is wrong
        raise ModelError(f"{path}: not a checkpoint, or incomplete ({_first_line(error)})") from error
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ModelError(f"{path}: has something other than named tensors in it")
    if not all(isinstance(name, str) for name in found):
        raise ModelError(f"{path}: has tensors whose names are not text")
    return found


# ------------------------------------------------------------------------------------------------ fetching
def _fetched(repository: str) -> Path:
    """The folder in the hub library's cache with config and weights. Files that are already there are not fetched.

    An interrupted download resumes where it stopped, and only a complete file gets its name in the cache.
    """
    # The package hf_xet (1.x) downloads faster, but retries for ever, or raises errors of no common type, if the hub's
    # storage fails. Plain HTTP is fast enough for 79 MB. The hub library reads this variable when it is imported, and
    # nothing imports it before.
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    try:
        from huggingface_hub.utils import logging
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        raise PerceiverdError("the hub needs a package: pip install 'perceiverd[hub]'; or give a folder") from error
    logging.set_verbosity_error()  # it logs every attempt; we report the error of the last one
    if not (config := _downloaded(repository, CONFIG_FILE)):
        raise ModelError(f"{PREFIX}{repository}: found no {CONFIG_FILE}")
    for name in WEIGHTS_FILES:
        if weights := _downloaded(repository, name):
            _check_sha256(weights)
            return config.parent
    raise ModelError(f"{PREFIX}{repository}: {NO_WEIGHTS}")


def _downloaded(repository: str, name: str) -> Path | None:
    """One file in the hub library's cache; None if the hub reports that the repository does not have it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, name))
    except LocalEntryNotFoundError as error:  # a subclass of EntryNotFoundError, but the hub was not reached
        why = _first_line(error.__cause__ or error)
        raise ModelError(f"{PREFIX}{repository}: cannot be fetched: cannot reach the hub ({why})") from error
    except EntryNotFoundError:
        return None
    except Exception as error:  # its own errors, those of its HTTP client, and RuntimeError have no other common base
        raise ModelError(f"{PREFIX}{repository}: cannot be fetched ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check_sha256(path: Path) -> None:
    """Raises ModelError if a large file has another sha256 than the hub gave: the cache names the file by that."""
    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        with blob.open("rb") as data:
            found = hashlib.file_digest(data, "sha256").hexdigest()
        if found != blob.name:
            why = f"sha256 is {found[:12]}…, but the hub gave {blob.name[:12]}…"
            raise ModelError(f"{path.name}: {why}; remove {blob}, then fetch again")


# ------------------------------------------------------------------------------------------------ README
README = """# {name}

The Perceiver IO of Jaegle et al. (2021). Its authors trained it to compress video, audio and the name of the action in
them (Kinetics-700-2020). perceiverd {version} converted it from `{source}` and kept only what scores the 700 names. The
last two linear layers were merged into one, and the masked label token became a constant.

* **Input**: {frames} frames of {width}x{height} at {fps:g} per second, the centre of the image, values 0 to 1; and
  {samples} audio samples at {rate_hz} Hz, -1 to 1. A window lasts {seconds:g} s.
* **Scores** are a softmax: they sum to 1 over all 700 labels, so one label always has a high score. {labels}
* **Quality**: not measured here. The paper has variants with 10.2 % and 45 % top-1 accuracy. It is not documented which
  of them was published.
* **GELU** is `{gelu}`, as in the checkpoint's config. (The original, in JAX, used the approximation by `tanh`; its
  logits differ by about 0.001.)
* **Licence**: {licence}. {credit}
* A missing modality is masked. The model was not trained for that, so scores without audio or without video are worse.
"""
NAMES_CREDIT = "Names of actions: Kinetics, DeepMind, CC BY 4.0."
WEIGHTS_CREDIT = "Weights: DeepMind, CC BY 4.0, published on the Hugging Face hub under Apache-2.0."
KINETICS_LABELS = "The labels are human\n  actions, not AudioSet's sounds; their ids are `k700/...`."
OWN_LABELS = """{own} labels have names
  from the checkpoint's config that Kinetics does not have; their ids are `user/...`, those of the others `k700/...`."""


def _readme(name: str, source: str, licence: str, geometry: Geometry, labels: Sequence[Label]) -> str:
    own = sum(label.mid.startswith("user/") for label in labels)
    credit = f"{WEIGHTS_CREDIT} {NAMES_CREDIT}" if licence == LICENCE else NAMES_CREDIT
    media = {**msgspec.to_builtins(geometry.audio), **msgspec.to_builtins(geometry.video)}
    return README.format(
        name=name,
        version=__version__,
        source=source,
        seconds=geometry.window_ns / 1e9,
        gelu=geometry.trunk.gelu,
        licence=licence,
        credit=credit,
        labels=OWN_LABELS.format(own=own) if own else KINETICS_LABELS,
        **media,
    )
