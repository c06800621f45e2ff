"""The programs in `examples/` work."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perceiverd.wire import keys
from perceiverd.wire.auth import Authenticator
from perceiverd.wire.publisher import Publisher
from tests.support.messages import LOOPBACK, event, hello, scores, until

EXAMPLES = Path(__file__).parents[2] / "examples"
CLIP = Path(__file__).parents[2] / "configs" / "demo" / "clip.mp4"
DEADLINE_S = 300
"""A very busy machine takes minutes to tag the clip."""
pytestmark = pytest.mark.timeout(DEADLINE_S + 60)


@contextmanager
def running(publisher: Publisher, *command: str | Path, **environment: str) -> Iterator[Iterator[str]]:
    """The lines that a program prints, once it has subscribed."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | environment, start_new_session=True
    ) as program:
        try:
            until(publisher, lambda: publisher.subscriptions > 0 or program.poll() is not None)
            assert program.stdout
            yield iter(program.stdout)
        finally:
            os.killpg(program.pid, signal.SIGKILL)  # a shell has started more processes


def test_events_in_python() -> None:
    """The Python example prints the beginning and the end of an event, and a stale daemon."""
    with (
        Publisher(LOOPBACK) as publisher,
        running(publisher, sys.executable, EXAMPLES / "events.py", publisher.endpoint) as lines,
    ):
        until(publisher, lambda: publisher.subscriptions == 3)
        for message in (hello(), event("begin", 1), event("end", 1)):
            publisher.send(message)
        assert next(lines).startswith("a: Dog since ")
        assert next(lines) == "a: Dog ended after 1.0 s\n"
        assert next(lines).startswith("nothing received for 3 s")


def test_files_in_python(tmp_path: Path) -> None:
    """The example prints events of a label and the labels of each file, and says what failed."""
    command: list[str | Path] = [sys.executable, EXAMPLES / "tag_files.py", "Bark", CLIP, tmp_path / "nowhere.wav"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    assert f"{CLIP}: Bark from " in done.stdout
    assert done.stderr.startswith(f"{tmp_path}/nowhere.wav failed: ")


def test_a_command_runs_when_an_event_begins(tmp_path: Path) -> None:
    """The command receives the message that begins an event of its label, and no other message."""
    (tmp_path / "perceiverd").write_text(f'#!/bin/sh\nexec {sys.executable} -m perceiverd "$@"\n')
    (tmp_path / "perceiverd").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    with Publisher(LOOPBACK) as publisher:
        publisher.send(event("begin", 1))
        with running(publisher, EXAMPLES / "when.sh", publisher.endpoint, "Dog", "cat", PATH=path) as lines:
            until(publisher, lambda: publisher.subscriptions >= 4)
            for message in (hello(), event("begin", 2), event("end", 2), event("begin", 3)):
                publisher.send(message)
            assert [json.loads(next(lines))["id"] for _ in range(2)] == ["2", "3"]


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled C program."""
    compiler, program = shutil.which("cc"), tmp_path_factory.mktemp("examples") / "labels"
    if not compiler:
        pytest.skip("no C compiler")
    if subprocess.run([compiler, "-E", "-"], input="#include <zmq.h>", text=True, capture_output=True).returncode:
        pytest.skip("no headers of libzmq (libzmq3-dev)")
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1"]
    subprocess.run([compiler, *flags, "-o", program, EXAMPLES / "labels.c", "-lzmq"], check=True, timeout=60)
    return program


def test_labels_in_c(labels: Path) -> None:
    """The C example prints topic and JSON of each message, and how many were lost."""
    with Publisher(LOOPBACK) as publisher, running(publisher, labels, publisher.endpoint, "scores/a/") as lines:
        publisher.send(scores())
        topic, _, body = next(lines).partition(" ")
        assert (topic, json.loads(body)["seq"]) == ("scores/a/", 0)
        publisher._sent["scores/a/"] += 2  # as if two messages had been lost
        publisher.send(scores())
        assert next(lines) == "2 messages of scores/a/ were lost\n"
        assert json.loads(next(lines).partition(" ")[2])["seq"] == 3


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[tuple[Publisher, Path, Path]]:
    """A publisher that encrypts, its public key file, and the secret key file of an admitted client."""
    (tmp_path / "clients").mkdir()
    server_key, server_secret = keys.create_pair("daemon", tmp_path)
    _, client_secret = keys.create_pair("kitchen", tmp_path / "clients")
    with Publisher(LOOPBACK, authenticator=Authenticator(server_secret, tmp_path / "clients")) as publisher:
        yield publisher, server_key, client_secret


def test_events_in_python_encrypted(encrypted: tuple[Publisher, Path, Path]) -> None:
    """The Python example connects to a daemon that encrypts, with two key files."""
    publisher, *key_files = encrypted
    with running(publisher, sys.executable, EXAMPLES / "events.py", publisher.endpoint, *key_files) as lines:
        until(publisher, lambda: publisher.subscriptions == 3)
        publisher.send(event("begin", 1))
        assert next(lines).startswith("a: Dog since ")


def test_labels_in_c_encrypted(labels: Path, encrypted: tuple[Publisher, Path, Path]) -> None:
    """The C example connects to a daemon that encrypts, with keys from the environment."""
    publisher, server_key, client_secret = encrypted
    pair = keys.read_pair(client_secret)
    environment = {
        "SERVER_KEY": keys.read_public(server_key).decode(),
        "PUBLIC_KEY": pair.public.decode(),
        "SECRET_KEY": pair.secret.decode(),
    }
    with running(publisher, labels, publisher.endpoint, **environment) as lines:
        publisher.send(scores())
        assert next(lines).startswith('scores/a/ {"type":"scores"')
