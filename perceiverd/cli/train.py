"""`perceiverd train`: hands its arguments to the command line of `training`. Knows none of its commands."""

from __future__ import annotations

from perceiverd.core.errors import PerceiverdError


def run(arguments: list[str]) -> None:
    """Run a command of `training`. Raises PerceiverdError if the extra is not installed or a path does not exist."""
    try:
        import perceiverd.training.cli.app as training
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("perceiverd"):  # a bug of perceiverd, not a missing extra
            raise
        raise PerceiverdError(f"training needs an extra: pip install 'perceiverd[train]' ({error})") from error
    try:
        training.app(arguments, prog_name="perceiverd train")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        if error.filename is None:
            raise
        raise PerceiverdError(f"{error.filename}: {error.strerror}; check the paths in the command") from error
