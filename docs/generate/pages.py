"""The generated pages: a template each, with `{{name}}` where a part from the code goes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from docs.generate import commands, history_options, log_events, messages, metrics, models, options, web_options

TEMPLATES = Path(__file__).parent / "templates"
REFERENCE = Path(__file__).parents[1] / "reference"
NOTICE = "<!-- Written by `make docs` from the code and docs/generate/templates/{name}: change those. -->"

PAGES: Mapping[str, Callable[[], dict[str, str]]] = {
    "configuration.md": options.contents,
    "history-configuration.md": history_options.contents,
    "web-configuration.md": web_options.contents,
    "web-api.md": web_options.api_contents,
    "wire.md": messages.contents,
    "records.md": messages.record_contents,
    "metrics.md": metrics.contents,
    "cli.md": commands.contents,
    "log-events.md": log_events.contents,
    "model-folder.md": models.contents,
}
"""Each page with the function that returns its parts."""


def written(name: str) -> str:
    """The text of a page. Raises ValueError if the template and the parts do not match."""
    template, parts = (TEMPLATES / name).read_text(encoding="utf-8"), PAGES[name]()
    places = set(re.findall(r"\{\{(\w+)\}\}", template))
    if places != parts.keys():
        raise ValueError(f"{TEMPLATES / name}: has places for {sorted(places)}, and the code gives {sorted(parts)}")
    filled = re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)
    return f"{NOTICE.format(name=name)}\n\n{filled}"


def write_all() -> list[str]:
    """Write the pages that differ from their files; the names of these."""
    changed = []
    for name in PAGES:
        path, text = REFERENCE / name, written(name)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(name)
    return changed
