"""Docstrings under the fields of a class, which Python does not keep. Reads source text; knows no struct of ours."""

from __future__ import annotations

import ast
import inspect
import textwrap


def field_docstrings(kind: type) -> dict[str, str]:
    """The docstring under each annotated field of this class, by the field's name, with blanks and line ends folded.

    Includes fields that it inherits from classes of its own top package. Fields without a docstring are not in it.
    Raises OSError if the source is not on disk.
    """
    package = kind.__module__.partition(".")[0]
    bases = [base for base in reversed(kind.__mro__) if base.__module__.partition(".")[0] == package]
    return {name: text for base in bases for name, text in _own(base).items()}


def _own(kind: type) -> dict[str, str]:
    """The same without inherited fields."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found
