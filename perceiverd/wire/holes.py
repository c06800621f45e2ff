"""What a window lacks of its media, in words for people."""

from __future__ import annotations

from collections.abc import Mapping


def described(filled_ms: Mapping[str, float], missing: Mapping[str, str]) -> str:
    """`no audio: hole`, `85 ms of audio filled`, by the keys of `Scores`; empty if the window lacks nothing.

    Media that the stream or file has never had is no loss.
    """
    losses = [f"no {modality}: {reason}" for modality, reason in missing.items() if reason != "no track"]
    return ", ".join([*losses, *(f"{filled:.0f} ms of {modality} filled" for modality, filled in filled_ms.items())])
