"""Debian's machine-readable copyright files: the copyright holders and the licence of each file in a package.

Knows the format (DEP-5) and how the paths of a source tree relate to installed paths. Knows nothing of sounds.
"""

import fnmatch
import re
from dataclasses import dataclass

LONGEST = 120
"""Characters of a list of holders; "et al." stands for further names."""
ARCHIVES = re.compile(r"\.(zip|pk3|rcc|wz)$")


@dataclass(frozen=True)
class Stanza:
    """A group of files with one licence and their copyright holders."""

    globs: tuple[str, ...]
    holders: str
    licence: str


class Copyright:
    """The stanzas of one package's copyright file; none if the text is not machine-readable."""

    def __init__(self, text: str) -> None:
        head = text.lstrip().partition("\n")[0]
        machine = head.startswith("Format") and ("copyright-format" in head or "dep5" in head)
        self.stanzas = [stanza for block in re.split(r"\n\s*\n", text) if (stanza := _stanza(block))] if machine else []

    def of(self, path: str) -> Stanza | None:
        """The last stanza that matches the path, as the format demands; None if no stanza matches."""
        parts = [part for part in path.split("/") if not ARCHIVES.search(part)]
        found = None
        for stanza in self.stanzas:
            if any(_names(glob, parts) for glob in stanza.globs):
                found = stanza
        return found


def _stanza(block: str) -> Stanza | None:
    """A paragraph as a stanza; None if it has no files or no licence."""
    fields: dict[str, list[str]] = {}
    current: list[str] = []
    for line in block.splitlines():
        if match := re.match(r"([A-Za-z-]+):\s*(.*)", line):
            current = fields.setdefault(match[1].lower(), [])
            current.append(match[2])
        elif line[:1] in {" ", "\t"}:
            current.append(line.strip())
    if "files" not in fields or "license" not in fields:
        return None
    globs = tuple(" ".join(fields["files"]).replace("\\ ", "?").split())
    return Stanza(globs, holders(fields.get("copyright", [])), fields["license"][0].strip())


def holders(lines: list[str]) -> str:
    """The names in copyright lines, without years, signs and addresses; at most LONGEST characters."""
    names: list[str] = []
    for line in lines:
        name = re.sub(r"(?i)copyright|\(c\)|©|<[^>]*>|\b\d{4}\b(\s*[-–,]\s*\d{2,4})*|all rights reserved", " ", line)
        name = " ".join(name.split()).strip(" ,;:.-–").removeprefix("by ")
        if name and name not in names:
            names.append(name)
    kept = "; ".join(names)
    if len(kept) > LONGEST:
        kept = kept[:LONGEST].rpartition("; ")[0] or kept[:LONGEST]
        kept += " et al."
    return kept


def _names(glob: str, parts: list[str]) -> bool:
    """Whether a source tree's glob matches an installed path.

    A package may move folders. So any tail of the path may match the glob, or the glob's last two or more parts.
    """
    if glob in {"*", "./*"}:
        return True
    wanted = glob.removeprefix("./").split("/")
    tails = ["/".join(wanted[skip:]) for skip in range(max(len(wanted) - 1, 1))]
    # A tail such as "sounds/*" could lie anywhere.
    specific = [
        tail for at, tail in enumerate(tails) if at == 0 or len(tail.replace("*", "").strip("/").split("/")) > 1
    ]
    return any(fnmatch.fnmatchcase("/".join(parts[start:]), tail) for tail in specific for start in range(len(parts)))
