"""What the operator reads after a fit: what was learnt, and what would have changed. Pure: values in, Markdown out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perceiverd.core.labels import Label
from perceiverd.training.corrections.learning import LearntClip, LearntRow
from perceiverd.training.corrections.replay import Changes


def learnt(rows: Sequence[LearntRow], clips: Sequence[LearntClip], hours: float) -> Iterator[str]:
    """One line for each row."""
    yield f"{len(clips)} corrections; {_time(hours)} of background in stretches of a minute or less"
    yield ""
    yield "| label | clips with it | wrong events | threshold | found when left out | stretches with false alarms |"
    yield "|---|--:|--:|---|--:|--:|"
    for each in rows:
        present = sum(clip.has_label and clip.mid == each.label.mid for clip in clips)
        wrong = sum(not clip.has_label and clip.mid == each.label.mid for clip in clips)
        old = "new" if each.old_threshold is None else f"{each.old_threshold:.2g}"
        threshold = f"{old} -> {each.choice.threshold:.2g}" if each.choice.threshold != each.old_threshold else old
        found, tried = each.left_out
        left_out = f"{found} of {tried}" if tried else "-"
        false = f"{each.choice.false} of {each.choice.absent}"
        yield f"| {each.label.name} | {present} | {wrong} | {threshold} | {left_out} | {false} |"
    yield ""
    for each in rows:
        if each.old_threshold is not None:
            before, after = each.members
            yield f"{each.label.name}: {before} of the windows that the model remembers had it, {after} have it now."
    yield from _warnings(rows, hours)


def _warnings(rows: Sequence[LearntRow], hours: float) -> Iterator[str]:
    for each in rows:
        if each.old_threshold is not None and not each.are_met:
            yield f"{each.label.name}: not all corrections could be met without a larger change; check its clips."
    few = [each.label.name for each in rows if each.old_threshold is None and each.choice.present < 5]
    if few:
        yield f"Fewer than five examples: {', '.join(few)}. More examples find more."
    if hours < 1:
        yield "Less than an hour of background: expect false alarms of new labels. Give --recent, or --rehearse."


def changed(changes: Changes, labels: Sequence[Label], history: bool) -> Iterator[str]:
    """What would have changed, by label."""
    seen = {*changes.stored, *changes.before, *changes.after}
    yield "What would have changed:"
    yield ""
    if not seen:
        heard = f"{_time(changes.heard_s / 3600)} of background"
        yield f"Nothing: these labels have no event in {heard}{' and in the last week of history' if history else ''}."
        return
    yield (
        "| label | stored events | with sound | of these, would not come "
        f"| events in {_time(changes.heard_s / 3600)} of background | now | lost | new |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for index in sorted(seen, key=lambda each: labels[each].name):
        clips = (changes.stored, changes.judged, changes.gone)
        sound = (changes.before, changes.after, changes.lost, changes.new)
        yield f"| {labels[index].name} | {' | '.join(str(each[index]) for each in (*clips, *sound))} |"
    if changes.places:
        yield ""
        yield from changes.places


def _time(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.0f} minutes"
