"""The options of the configuration: defaults, and the combinations that they refuse."""

from pathlib import Path

import msgspec
import pytest

from perceiverd import config
from perceiverd.core.errors import ConfigError
from perceiverd.core.paths import SERVICE_ENDPOINT
from perceiverd.pipeline.stalls import StallLimits
from perceiverd.pipeline.windower import Tolerance
from tests.support.configs import refusal, write_config


def test_the_default_endpoint_is_the_services() -> None:
    """Without a configuration labels are published where `watch` looks for them."""
    assert config.Config().publish.endpoint == SERVICE_ENDPOINT


def test_the_windower_gets_the_options_of_the_file() -> None:
    """`[window]` and `[stalls]` become the windower's tolerance and the detectors' limits, in nanoseconds."""
    window = config.WindowConfig(wait_s=1.5, chunk_gap_s=0.25, frame_gap_s=2.0, conceal_s=0.5)
    assert window.tolerance == Tolerance(
        wait_ns=1_500_000_000, chunk_gap_ns=250_000_000, frame_gap_ns=2_000_000_000, conceal_ns=500_000_000
    )
    assert config.StallsConfig(frozen_s=3.5, silent_s=0.0).limits == StallLimits(frozen_ns=3_500_000_000, silent_ns=0)


@pytest.mark.parametrize("address", ["0.0.0.0", "*", "192.0.2.7", "[::]", "eth0", "host.example"])
def test_an_open_endpoint_needs_keys_or_permission(address: str, tmp_path: Path) -> None:
    """An address that other machines can reach needs both keys or `insecure`; paths of keys start at the file."""
    text = f'[publish]\nendpoint = "tcp://{address}:5555"\n'
    assert f"other machines could reach endpoint tcp://{address}:5555, unencrypted" in refusal(tmp_path, text)
    assert config.load(write_config(tmp_path, text + "insecure = true")).publish.insecure
    publish = config.load(
        write_config(tmp_path, text + 'secret_key = "a.key_secret"\nclient_keys = "/etc/clients"')
    ).publish
    assert (publish.secret_key, publish.client_keys) == (f"{tmp_path}/a.key_secret", "/etc/clients")


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:5555", "tcp://[::1]:*", "tcp://localhost:1", "ipc://@name", "ipc:///x"]
)
def test_a_local_endpoint_is_allowed(endpoint: str) -> None:
    """Loopback and ipc need no keys."""
    assert config.PublishConfig(endpoint=endpoint).endpoint == endpoint


def test_a_configuration_cannot_be_changed() -> None:
    """A configuration that was read is immutable, and compares by value."""
    with pytest.raises(AttributeError):
        config.Config().window.hop_s = 3  # type: ignore[misc]
    assert msgspec.structs.replace(config.Config()) == config.Config()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", None),
        ('metrics.endpoint = "127.0.0.1:9464"', ("127.0.0.1", 9464)),
        ('metrics.endpoint = "[::1]:*"', ("::1", 0)),
        ('metrics = { endpoint = "0.0.0.0:80", insecure = true }', ("0.0.0.0", 80)),
    ],
)
def test_metrics_have_an_address_if_configured(tmp_path: Path, text: str, address: tuple[str, int] | None) -> None:
    """There is no metrics server by default; an address beyond loopback needs `insecure`."""
    assert config.load(write_config(tmp_path, text)).metrics.address == address


def test_labels_and_metrics_need_different_ports(tmp_path: Path) -> None:
    """The same address for both is refused, with --endpoint too; two addresses may use the same port."""
    both = 'metrics.endpoint = "127.0.0.1:9464"\npublish.endpoint = "tcp://{}"'
    error = "publish.endpoint and metrics.endpoint use the same port 9464; change one"
    assert refusal(tmp_path, both.format("127.0.0.1:9464")) == f"$: {error}"
    assert refusal(tmp_path, both.format("localhost:9464")) == f"$: {error}"
    assert refusal(tmp_path, both.format("*:9464") + "\npublish.insecure = true") == f"$: {error}"
    for fine in ("127.0.0.2:9464", "127.0.0.1:9465", "127.0.0.1:*"):
        config.load(write_config(tmp_path, both.format(fine)))
    with pytest.raises(ConfigError, match=f"^--endpoint: {error}$"):
        config.load(write_config(tmp_path, 'metrics.endpoint = "127.0.0.1:9464"'), "tcp://127.0.0.1:9464")


@pytest.mark.parametrize("endpoint", ["9464", "127.0.0.1", "127.0.0.1:99999", "http://127.0.0.1:80", "[::1]"])
def test_an_invalid_metrics_endpoint_is_refused(tmp_path: Path, endpoint: str) -> None:
    """The error shows a valid endpoint; an address that other machines can reach has another error."""
    assert "endpoint must be HOST:PORT, such as 127.0.0.1:9464" in refusal(tmp_path, f'metrics.endpoint = "{endpoint}"')
    line = refusal(tmp_path, 'metrics.endpoint = "0.0.0.0:9464"')
    assert "every machine on the network could read endpoint 0.0.0.0:9464" in line and "insecure = true" in line
