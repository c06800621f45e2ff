"""The references in docs/reference are what the code makes; and what they are made from is complete."""

from pathlib import Path

import pytest

from docs.generate import commands, log_events, markdown, messages, options, pages, structs
from perceiverd.cli import app as main
from perceiverd.core.log_events import EVENTS
from perceiverd.training.cli import app as training
from perceiverd.wire import schema


@pytest.mark.parametrize("name", pages.PAGES)
def test_committed_pages_are_up_to_date(name: str) -> None:
    """A page on disk is what the generator writes; otherwise run `make docs`."""
    assert (pages.REFERENCE / name).read_text(encoding="utf-8") == pages.written(name), "run `make docs`"


@pytest.mark.parametrize("name", pages.PAGES)
def test_every_entry_has_a_meaning(name: str) -> None:
    """The last column of a generated table, which comes from a docstring, is never empty."""
    assert [line for line in pages.written(name).splitlines() if line.endswith("|  |")] == []


def test_a_template_and_its_parts_must_match(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part without a place in the template is an error."""
    monkeypatch.setitem(pages.PAGES, "cli.md", lambda: {"commands": "", "train": "", "extra": ""})
    with pytest.raises(ValueError, match="extra"):
        pages.written("cli.md")


def test_every_option_of_every_command_is_shown() -> None:
    """cli.md contains each command with all its options."""
    text = pages.written("cli.md")
    for app, program in ((main.app, "perceiverd"), (training.app, "perceiverd train")):
        for words, command in commands.commands(app).items():
            if f"{program} {words}" != commands.TRAIN:
                section = text.partition(f"\n## {program} {words}\n")[2].partition("\n## ")[0]
                assert {name for name in commands.options(command) if name not in section} == set(), words


def test_every_option_of_the_configuration_is_shown() -> None:
    """configuration.md contains each option of each table."""
    text = pages.written("configuration.md")
    for name, kind in options.sections():
        section = text.partition(f"\n## [{name}]\n")[2].partition("\n## ")[0]
        assert [field.name for field in structs.fields(kind) if f"| `{field.name}` |" not in section] == [], name


def test_every_key_of_the_wire_is_shown() -> None:
    """wire.md has a section per message with all keys that the JSON Schema requires."""
    definitions = schema.json_schema()["$defs"]
    for kind in messages.KINDS:
        keys = {key.partition(".")[0].removesuffix("[]") for key in messages.keys(kind)}
        assert keys | {"type", *messages.COMMON} == set(definitions[kind.__name__]["required"])


def test_log_events_have_literal_names() -> None:
    """Every call of log_event names its event with a literal, so that a search finds it."""
    assert [call.place for call in log_events.calls() if call.event is None] == []


def test_log_events_are_in_the_table() -> None:
    """Every event that the code logs has a description."""
    assert [f"{call.place}: {call.event}" for call in log_events.calls() if call.event not in EVENTS] == []


def test_described_log_events_are_logged() -> None:
    """Every event that is described is logged somewhere."""
    assert EVENTS.keys() - {call.event for call in log_events.calls()} == set()


def test_log_calls_are_read_from_source(tmp_path: Path) -> None:
    """Room, levels and fields of a call come from its source; a computed name is ignored. A limit adds a field."""
    (tmp_path / "wire").mkdir()
    (tmp_path / "wire" / "keys.py").write_text(
        'log_event(logger, logging.INFO if good else logging.ERROR, "keys-read", folder=folder, count=1)\n'
        "log_event(logger, level, name)\n"
        'log_limited(logger, logging.ERROR, "keys-lost", limit, now_ns, folder=folder)\n'
    )
    first, second, third = log_events.calls(tmp_path)
    assert first == log_events.Call("wire", "wire/keys.py:1", "keys-read", ("INFO", "ERROR"), ("folder", "count"))
    assert second.event is None and second.levels == ()
    assert third == log_events.Call("wire", "wire/keys.py:3", "keys-lost", ("ERROR",), ("folder", "suppressed"))


def test_cells_of_a_table_are_escaped() -> None:
    """A bar or a line end inside a cell does not end the cell."""
    assert markdown.table(["a"], [["x|y\nz"]]).splitlines()[-1] == "| x\\|y z |"


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [("[streams.NAME]", "streamsname"), ("Run it as a service", "run-it-as-a-service"), ("`core/paths`", "corepaths")],
)
def test_anchors_are_githubs(heading: str, anchor: str) -> None:
    """An anchor is in small letters, without punctuation, with hyphens for blanks."""
    assert markdown.anchor(heading) == anchor
