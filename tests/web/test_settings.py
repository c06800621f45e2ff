"""The configuration of the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perceiverd.core.errors import ConfigError
from perceiverd.core.paths import SERVICE_SNAPSHOTS
from perceiverd.history.settings import LOCAL
from perceiverd.web.settings import (
    CorrectionsConfig,
    HistorySource,
    ServerConfig,
    WatchedDaemon,
    WebConfig,
    WebOptions,
    check_safe,
    corrections_of,
    load,
    with_options,
)

EXAMPLE = Path(__file__).parents[2] / "configs" / "web.toml"


def test_the_example_equals_the_defaults() -> None:
    """configs/web.toml sets each option to its default; without daemons the service on this machine is shown."""
    assert load(EXAMPLE) == WebConfig()
    (daemon,) = with_options(load(EXAMPLE), WebOptions()).daemons.items()
    assert daemon == (LOCAL, WatchedDaemon("ipc:///run/perceiverd/labels", media=str(SERVICE_SNAPSHOTS)))


def test_the_example_shows_every_option(tmp_path: Path) -> None:
    """With its commented options switched on it is valid, and has two daemons; paths start at its folder."""
    text = re.sub(r"^# (?=\[|[a-z_]+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    path = tmp_path / "web.toml"
    path.write_text(text)
    found = load(path)
    assert list(found.daemons) == ["local", "barn"]
    assert found.daemons["barn"].server_key == str(tmp_path / "barn.key")
    kinds: tuple[type, ...] = (ServerConfig, HistorySource, CorrectionsConfig, WatchedDaemon)
    options = {name for kind in kinds for name in getattr(kind, "__struct_fields__", ())}
    assert options <= set(re.findall(r"^([a-z_]+) = ", text, re.MULTILINE))


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    """Of the password, the history, the corrections, the media and the socket."""
    path = tmp_path / "web.toml"
    path.write_text(
        '[server]\nlisten = "unix:page.sock"\npassword_file = "pw"\n[history]\ndirectory = "h"\n'
        '[corrections]\ndirectory = "c"\n[daemons.a]\nendpoint = "ipc://labels"\nmedia = "m"\n'
    )
    found = load(path)
    assert found.server.socket_path == tmp_path / "page.sock"
    assert found.server.password_file == str(tmp_path / "pw")
    assert found.history.directory == str(tmp_path / "h")
    assert corrections_of(found) == tmp_path / "c"
    assert found.daemons["a"] == WatchedDaemon(f"ipc://{tmp_path}/labels", media=str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nlisen = 'x'", "$.server.lisen: unknown option; did you mean 'listen'?"),
        ("[server]\nlisten = 'localhost'", "listen must be HOST:PORT or unix:PATH, not 'localhost'"),
        ("[server]\nlisten = 'localhost:99999'", "listen must be HOST:PORT or unix:PATH, not 'localhost:99999'"),
        (f"[server]\nlisten = 'unix:/{'x' * 200}'", "the path of a socket has 1 to 107 bytes"),
        ("[server]\nprefix = '/a/'", "prefix must be like /perceiverd, without a slash at its end, not '/a/'"),
        ("[server]\nhosts = ['https://x.org']", "hosts has names without scheme and port"),
        ("[server]\nproxies = ['localhost']", "proxies has IP addresses or networks"),
        ("[daemons.a]\nendpoint = 'ipc:///x'\nmdia = 'x'", "$.daemons.a.mdia: unknown option; did you mean 'media'?"),
        ("[daemons]\na = 3", "$.daemons.a: write a table [daemons.NAME] for each daemon"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    """It names the file and the place, and suggests a repair."""
    path = tmp_path / "web.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ") and expected in str(caught.value)


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/x"])
def test_this_machine_needs_no_password(listen: str) -> None:
    """Loopback addresses and sockets in the file system."""
    check_safe(ServerConfig(listen=listen))


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "192.168.1.7:1", "camera.lan:1", "1270.0.0.1:1"])
def test_other_machines_need_a_password(listen: str) -> None:
    """What may be reached from outside is refused without one."""
    with pytest.raises(ConfigError, match="set a password"):
        check_safe(ServerConfig(listen=listen))
    check_safe(ServerConfig(listen=listen, password_file="x"))


def test_options_replace_the_file() -> None:
    """Endpoints of the command line replace the configured daemons; media is for all of them."""
    config = WebConfig(daemons={"a": WatchedDaemon("ipc:///a", media="/a")})
    found = with_options(config, WebOptions(endpoints=["b=ipc:///b"], media=Path("/m"), listen="localhost:*"))
    assert found.daemons == {"b": WatchedDaemon("ipc:///b", media="/m")}
    assert found.server.address == ("localhost", 0)
    assert corrections_of(found, {}) is None
    assert corrections_of(found, {"STATE_DIRECTORY": "/var/lib/x:/y"}) == Path("/var/lib/x/corrections")
