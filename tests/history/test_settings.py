"""The history's configuration file."""

import re
from pathlib import Path

import pytest

from perceiverd.history.settings import LOCAL, DaemonConfig, HistoryConfig, daemons_of, directory_of, load

EXAMPLE = Path(__file__).parents[2] / "configs" / "history.toml"


def test_the_example_equals_the_defaults() -> None:
    """configs/history.toml sets each option to its default."""
    assert load(EXAMPLE) == HistoryConfig()
    assert daemons_of(load(EXAMPLE).daemons, (), None, None) == {LOCAL: DaemonConfig("ipc:///run/perceiverd/labels")}


def test_the_example_shows_every_option(tmp_path: Path) -> None:
    """With its commented options switched on it is valid, and has two daemons; paths start at its folder."""
    text = re.sub(r"^# (?=\[|[a-z_]+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    path = tmp_path / "history.toml"
    path.write_text(text)
    found = load(path)
    assert found.daemons["barn"].server_key == str(tmp_path / "barn.key")
    assert directory_of(found, None) == Path("/srv/history")
    options = {*HistoryConfig().store.__struct_fields__, *DaemonConfig.__struct_fields__, "insecure"}
    assert options <= set(re.findall(r"^([a-z_]+) = ", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("ipc:///run/x", "local"),
        ("tcp://127.0.0.1:5555", "local"),
        ("tcp://barn.lan:5555", "barn.lan"),
        ("tcp://[fe80::1]:5555", "fe80__1"),
        ("yard=tcp://barn:1", "yard"),
    ],
)
def test_an_endpoint_has_a_name(endpoint: str, name: str) -> None:
    """The given one, `local` for this machine, or the host."""
    assert list(daemons_of({}, [endpoint], None, None)) == [name]
