"""Spreads files over workers with Ray Data. The only module that loads Ray.

Each worker is an actor with a model of its own. If one dies, Ray starts another and gives it the same file again; the
outputs of a file appear when they are complete, so a file that is tagged twice is there once.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from perceiverd.core.errors import PerceiverdError
from perceiverd.offline.cluster.layout import ClusterOutputs, stem_of
from perceiverd.offline.cluster.worker import ClusterJob, FileOutcome, FileTagger
from perceiverd.offline.decoding import shown_name

LOCAL = "local"
"""In place of an address: start Ray on this machine, and stop it at the end."""
MOST_BLOCKS = 20_000
"""Parts of the list. Ray plans each part, so a million files have parts of fifty; smaller lists have one file each."""
RETRIES = 3
"""How often a file is tried again after its worker died. A file that kills every worker must not stop the others."""
CONNECT_S = 10.0
"""How long the head of a cluster may take to answer."""
STORE_BYTES = 128 * 2**20
"""Shared memory of a local Ray. Only names and outcomes go through it."""
LOCAL_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # sends nothing
    # With this off, Ray takes 127.0.0.1 as the address of this machine, and all its processes listen there alone.
    # There is no option for that (ray 2.60); `_node_ip_address` replaces 127.0.0.1 with an address of the network.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # otherwise its processes print about themselves
}
"""For a local Ray; read when Ray is imported."""


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """Where to tag, and with how many workers."""

    address: str
    """`local`, `auto`, or HOST:PORT of a cluster's head."""
    workers: int | None
    """None: one for each GPU, or for each core if there is none."""


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """What became of all files."""

    tagged: int
    done_before: int
    windows: int
    media_s: float
    failures: tuple[FileOutcome, ...]


Progress = Callable[[FileOutcome], None]


def tag_files(
    files: Sequence[str], job: ClusterJob, plan: ClusterPlan, progress: Progress = lambda _: None
) -> ClusterReport:
    """Tag those of the files that are not done. Calls `progress` with each outcome as it comes.

    Raises PerceiverdError if Ray cannot be reached, or if no worker can start.
    """
    outputs = ClusterOutputs(job.outputs)
    outputs.prepare()
    done = outputs.done()
    left = [file for file in files if stem_of(file) not in done]
    outcomes: dict[str, FileOutcome] = {}
    if left:
        with _connected(plan) as workers:
            for file, outcome in _outcomes(left, job, workers):
                outcomes[file] = outcome
                progress(outcome)
    outputs.sweep(stem_of(file) for file in left)
    lost = [_lost(file) for file in left if file not in outcomes]
    for outcome in lost:
        progress(outcome)
    found = list(outcomes.values())
    return ClusterReport(
        tagged=sum(not each.error for each in found),
        done_before=len(files) - len(left),
        windows=sum(each.windows for each in found),
        media_s=sum(each.end_s for each in found),
        failures=tuple(each for each in [*found, *lost] if each.error),
    )


def _lost(file: str) -> FileOutcome:
    error = f"{file}: its worker died {RETRIES + 1} times; tag it alone to see why"
    return FileOutcome(file, 0, 0.0, error, 0)


@dataclass(frozen=True, slots=True)
class _Workers:
    """The workers that a cluster can have."""

    count: int
    gpus: bool


@contextmanager
def _connected(plan: ClusterPlan) -> Iterator[_Workers]:
    """A connection to Ray, which is stopped at the end if it was started here."""
    local = plan.address == LOCAL
    if local:
        os.environ.update({name: value for name, value in LOCAL_ENVIRONMENT.items() if name not in os.environ})
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise PerceiverdError(f"--ray needs an extra: pip install 'perceiverd[ray]' ({error})") from error
    settings: dict[str, Any] = {"address": plan.address, "log_to_driver": False, "logging_level": logging.ERROR}
    # A local Ray's logs and sockets. The path of a socket has at most 107 characters, so it is not in TMPDIR.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as own:
        if local:
            settings |= {
                "num_cpus": plan.workers or len(os.sched_getaffinity(0)),
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
                "_temp_dir": own,
            }
        try:
            if not local:
                _reach(plan.address)
            with _silenced():
                ray.init(**settings)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise PerceiverdError(
                f"Ray at {plan.address}: cannot be used: {error}; start it with `ray start --head`, or give --ray local"
            ) from error
        try:
            resources: dict[str, float] = ray.cluster_resources()
            gpus = int(resources.get("GPU", 0))
            yield _Workers(plan.workers or gpus or int(resources.get("CPU", 1)), gpus > 0)
        finally:
            ray.shutdown()


def _reach(address: str) -> None:
    """Raises ConnectionError if nothing listens at HOST:PORT: Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        if address != "auto":
            raise ValueError("expected local, auto or HOST:PORT")
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except OSError as error:
        raise ConnectionError(error.strerror or str(error)) from error


@contextmanager
def _silenced() -> Iterator[None]:
    """Send standard error nowhere: Ray's own library prints about its log level while it starts."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _outcomes(files: Sequence[str], job: ClusterJob, workers: _Workers) -> Iterator[tuple[str, FileOutcome]]:
    """Each file with its outcome, in any order; files whose workers died each time are left out."""
    import ray
    from ray import data

    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # a file that kills its workers costs only itself
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it prints the tracebacks of workers that die
    on_gpu = workers.gpus and job.device != "cpu"
    job = replace(job, device="cuda" if on_gpu and job.device == "auto" else job.device)
    with warnings.catch_warnings():
        # Ray 2.60 warns that the last two arguments will have another place in 2.64, but has no other place for them.
        warnings.simplefilter("ignore", DeprecationWarning)
        tagged = data.from_items(
            [{"file": file} for file in files], override_num_blocks=min(len(files), MOST_BLOCKS)
        ).map(
            cast(Any, _TaggingActor),  # its types know functions only
            fn_constructor_args=(job,),
            compute=data.ActorPoolStrategy(size=min(workers.count, len(files))),
            num_cpus=0 if on_gpu else 1,
            num_gpus=1 if on_gpu else 0,
            max_restarts=-1,
            max_task_retries=RETRIES,
        )
    try:
        for row in tagged.iter_rows():
            outcome = dict(row)
            yield outcome.pop("given"), FileOutcome(**outcome)
    except ray.exceptions.RayError as error:
        raise PerceiverdError(f"Ray: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """The last line of a worker's traceback, which is the error itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class _TaggingActor:
    """A `FileTagger` as Ray Data calls it: a row in, a row out."""

    def __init__(self, job: ClusterJob) -> None:
        self._tagger = FileTagger(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        file = row["file"]
        try:
            outcome = self._tagger.tag(file)
        except Exception as error:
            outcome = FileOutcome(
                shown_name(file), 0, 0.0, f"{shown_name(file)}: {type(error).__name__}: {error}", os.getpid()
            )
        return {"given": file, **asdict(outcome)}
