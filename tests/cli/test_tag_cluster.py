"""`perceiverd tag --ray` as its user runs it: its options, and a cluster that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.program import Perceiverd


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "needs --out"),
        (("--out", "x", "--events"), "cannot be combined with --ray"),
        (("--out", "x", "--recursive"), "cannot be combined with --ray"),
        (("--out", "x", "--format", "jsonl"), "--ray writes parquet"),
        (("--out", "x", "--device", "gpu"), "'gpu' is not auto, cpu, cuda or cuda:N"),
    ],
)
def test_options_that_do_not_fit_are_wrong_usage(
    perceiverd: Perceiverd, arguments: tuple[str, ...], message: str
) -> None:
    """What Ray's workers do not do is refused, not ignored."""
    status, out, err = perceiverd("tag", "a.wav", "--ray", "local", *arguments)
    assert (status, out) == (2, "") and message in err


def test_a_cluster_that_is_not_there_is_one_line(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """An address where nothing listens is an error at once, and so is an empty pattern."""
    arguments = ("--ray", "127.0.0.1:1", "--out", tmp_path / "out", "--model", tiny_model)
    status, out, err = perceiverd("tag", "a.wav", *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("perceiverd: Ray at 127.0.0.1:1: cannot be used: ") and err.count("\n") == 1
    status, _, err = perceiverd("tag", tmp_path / "*.none", *arguments)
    assert status == 1 and "has no file" in err
