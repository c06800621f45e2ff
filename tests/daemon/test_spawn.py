"""A daemon in a child process: where it listens, how it ends, and what is reported if it does not start."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from perceiverd.core.errors import PerceiverdError
from perceiverd.daemon.spawn import SpawnedDaemon

STARTUP_S = 100.0


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path, wav: Callable[[float], Path]) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(f"""
        model = {{ name = "{tiny_model}", threads = 1 }}
        publish.endpoint = "ipc://labels"
        metrics.endpoint = "127.0.0.1:*"
        streams.a.sources = [{{ kind = "file", path = "{wav(60)}" }}]
    """)
    return path


def test_its_addresses_are_found(config: Path, tmp_path: Path) -> None:
    """The endpoint and the URL of the metrics come from its log. If the model still loads, it ends by the signal."""
    with SpawnedDaemon(config, STARTUP_S) as daemon:
        assert daemon.endpoint() == f"ipc://{tmp_path}/labels"
        assert daemon.metrics_url().endswith("/metrics")
        assert daemon.is_running and Path(f"/proc/{daemon.pid}").exists()
        assert daemon.stop() in (0, -signal.SIGTERM)


def test_leaving_the_context_stops_it(config: Path) -> None:
    """An error inside `with` leaves no process behind."""
    with pytest.raises(ZeroDivisionError), SpawnedDaemon(config, STARTUP_S) as daemon:
        raise ZeroDivisionError
    assert not Path(f"/proc/{daemon.pid}").exists()


def test_a_daemon_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    """The error has its exit status and its last line."""
    (tmp_path / "c.toml").write_text("[windw]")
    with (
        SpawnedDaemon(tmp_path / "c.toml", STARTUP_S) as daemon,
        pytest.raises(PerceiverdError, match=r"ended with status 78; its last line: .* did you mean 'window'\?"),
    ):
        daemon.endpoint()


def test_a_daemon_that_is_slow_is_one_line(config: Path) -> None:
    """A daemon that does not listen in time is an error, and is stopped."""
    with (
        SpawnedDaemon(config, startup_s=0.0) as daemon,
        pytest.raises(PerceiverdError, match=r"did not start within 0 s; its last line: \(nothing\)"),
    ):
        daemon.endpoint()
