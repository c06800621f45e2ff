"""`model-folder.md`: the keys of `model.toml`, from the structs that read it."""

from __future__ import annotations

from docs.generate.markdown import code, table
from docs.generate.structs import Field, default_of, fields, summary, type_of
from perceiverd.model.card import CardFile
from perceiverd.model.geometry import Audio, Geometry, SenseGeometry, StemGeometry, Trunk, Video

TABLES = {
    "geometry": Geometry,
    "geometry.trunk": Trunk,
    "geometry.audio": Audio,
    "geometry.video": Video,
    "geometry.audio.stem, geometry.video.stem": StemGeometry,
    "geometry.audio.sense, geometry.video.sense": SenseGeometry,
}
HEADINGS = ("key", "type", "default", "meaning")


def contents() -> dict[str, str]:
    """The parts of the page."""
    sections = (f"### [{name}]\n\n{summary(kind)}\n\n{_keys(kind)}" for name, kind in TABLES.items())
    return {"card": _keys(CardFile), "geometry": "\n\n".join(sections)}


def _keys(kind: type) -> str:
    return table(HEADINGS, (_row(field) for field in fields(kind)))


def _row(field: Field) -> tuple[str, str, str, str]:
    kind = type_of(field.type)
    meaning = field.meaning or ("see below" if kind == "table" else "")
    return code(field.name), kind, default_of(field) or "required", meaning
