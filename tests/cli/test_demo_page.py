"""`perceiverd demo --web`, with the programs that it starts; tests/web/browser uses it as a newcomer does."""

from pathlib import Path

import pytest

from perceiverd.cli.demo_page import PAGE, SpawnedProgram
from perceiverd.core.errors import PerceiverdError


def test_a_program_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    """The error has the program's name, its exit status and its last line."""
    with (
        SpawnedProgram("the page", tmp_path / "log", "web", "--listen", "nowhere") as program,
        pytest.raises(PerceiverdError, match=r"the page ended with status 78; its last line: .*nowhere"),
    ):
        program.logged(PAGE)
