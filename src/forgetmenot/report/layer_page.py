"""The maps of the probe `layers` in a run's page: a picture for each question, and what it shows."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from forgetmenot.record.layer_map import LAYERS, LayerMap, layer_maps
from forgetmenot.record.results import RunResults
from forgetmenot.report import drawing
from forgetmenot.report.layer_table import numbered
from forgetmenot.report.wording import number, span


@dataclass(frozen=True)
class Figure:
    """A picture with its title and what its colours say."""

    title: str
    words: str
    picture: Markup


@dataclass(frozen=True)
class LayerPage:
    """What the page shows of one task."""

    task: str
    n: int
    figures: Sequence[Figure]
    sentences: Sequence[str]


def layer_pages(results: RunResults) -> list[LayerPage]:
    """One for each task that the probe `layers` has measured in a run."""
    if LAYERS not in results.probes:
        return []
    pages = []
    for one in layer_maps(results.probes[LAYERS], in_sequence=results.in_sequence):
        own = results.own_stage(one.task) if one.task in results.tasks else None
        pages.append(LayerPage(one.task, one.n, _figures(one, own), list(layer_sentences(one, own))))
    return pages


def layer_sentences(one: LayerMap, own: int | None) -> list[str]:
    """Where a task lives and where it was overwritten, each with its number.

    Args:
        one: Its map.
        own: The stage that trained it; None where it was only watched.
    """
    said = []
    last = max((i for i, row in enumerate(one.base) if any(value is not None for value in row)), default=0)
    if own is not None and own <= last:
        if written := one.rewritten(own):
            own_doing = "by itself" if len(written) == 1 else "by themselves"
            said.append(f"Training on {one.task} changed {numbered(written)} most {own_doing}.")
        if held := one.holds(own):
            is_or_are = "is" if len(held) == 1 else "are"
            said.append(
                f"After it, {numbered(held)} {is_or_are} more like a model tuned on {one.task} alone than "
                "the base is."
            )
        if cuts := one.transitions(own):
            said.append(f"That likeness changes its level at {numbered(cuts)} (a rule of ours).")
        for i in range(own + 1, last + 1) if one.in_sequence else ():
            if over := sorted(set(one.rewritten(i)) & set(written or one.layers)):
                said.append(f"{one.stages[i]} changed {numbered(over)} again.")
    if not one.in_sequence:
        last = own or 0
    place = one.least_alike(last) if last else None
    if place is not None:
        value, interval = one.base[last][place], one.spans[last][place]
        where = f" ({span(interval)})" if interval else ""
        when = "At the end" if one.in_sequence else "Then"
        said.append(f"{when} layer {one.layers[place]} is least like the base: {number(value)}{where}.")
    return said


def _figures(one: LayerMap, own: int | None) -> list[Figure]:
    changed = [[None if value is None else 1 - value for value in row] for row in one.base]
    shown = [("Changed from the base", "1 − likeness to the base", changed)]
    since = "stage before" if one.in_sequence else "base"
    for title, words, name in (
        ("Rewritten by the stage", f"a layer’s own change since the {since}", one.by_the_stage),
        ("Like its control", "likeness to a model tuned on this task alone, less the base’s", "gain"),
    ):
        if name in one.more:
            shown.append((title, words, [list(row) for row in one.more[name]]))
    found = [
        Figure(title, words, picture(one, values, words, own, f"{one.task or 'prompts'}: {title}, {words}"))
        for title, words, values in shown
    ]
    if "gain" in one.more and own is not None:
        found.append(
            Figure("By layer, after its stage", "the same, with its 95 % band", gain_curve(one, own))
        )
    return found


def picture(
    one: LayerMap, values: Sequence[Sequence[float | None]], kind: str, own: int | None, label: str
) -> Markup:
    """Layers × stages: the darker, the larger the value; the lowest layer is at the bottom.

    Args:
        one: The map that the values belong to.
        values: [stages][layers], from −1 to 1; a negative one has the colour of a loss.
        kind: What they are, as in a title over a cell.
        own: The stage that trained the task.
        label: What a screen reader says.
    """
    left, top, bottom, cell = 30, 16, 18, 26
    tall = max(4.0, min(12.0, 240 / len(one.layers)))
    width, height = left + cell * len(one.stages) + 6, round(top + tall * len(one.layers) + bottom)
    parts = []
    for i, row in enumerate(values):
        for k, value in enumerate(row):
            if value is None:
                continue
            y = top + tall * (len(row) - 1 - k)
            title = f"{one.stages[i]}, layer {one.layers[k]}: {kind} {number(value)}"
            shade = f'class="cell {"loss" if value < 0 else "much"}" fill-opacity="{min(abs(value), 1):.2f}"'
            place = f'x="{left + cell * i}" y="{y:.1f}" width="{cell - 1}" height="{tall - 0.6:.1f}"'
            parts.append(f"<rect {shade} {place}><title>{escape(title)}</title></rect>")
    for k in sorted({0, len(one.layers) // 2, len(one.layers) - 1}):
        y = top + tall * (len(one.layers) - 1 - k) + tall / 2 + 3.5
        parts.append(drawing.words("tick", left - 6, y, "end", str(one.layers[k])))
    for i in range(len(one.stages)):
        parts.append(drawing.words("tick", left + cell * (i + 0.5), height - 4, "middle", str(i)))
    if own is not None:
        x = left + cell * own - 0.5
        tallest = tall * len(one.layers)
        parts.append(f'<rect class="own" x="{x}" y="{top - 1}" width="{cell}" height="{tallest + 1:.1f}"/>')
        parts.append(drawing.words("note", x + cell / 2, top - 5, "middle", "trained"))
    return drawing.svg("layers", width, height, label, parts)


def gain_curve(one: LayerMap, i: int) -> Markup:
    """How much more like the control than the base is, layer by layer after a stage: MOSSA's figure.

    Upright lines stand where the curve changes its level.
    """
    width, height, left, right, top, bottom = 260, 240, 30, 6, 12, 24
    rows = [
        (layer, value, low, high)
        for layer, value, low, high in zip(
            one.layers, *(one.more[name][i] for name in ("gain", "gain low", "gain high")), strict=True
        )
        if value is not None and low is not None and high is not None
    ]
    label = f"{one.task}: likeness to its control less the base’s, by layer"
    if not rows:
        return drawing.svg("curve", width, height, label, [])
    scale = min(-0.1, *(row[2] for row in rows)), max(0.1, *(row[3] for row in rows))
    x = drawing.axis(rows[0][0], max(rows[-1][0], rows[0][0] + 1), left, width - right)
    y = drawing.axis(*scale, height - bottom, top)
    edge = [(x(row[0]), y(row[3])) for row in rows] + [(x(row[0]), y(row[2])) for row in reversed(rows)]
    line = [(x(row[0]), y(row[1])) for row in rows]
    parts = drawing.grid(scale, y, left, width - right)
    parts += [
        drawing.line("trained", x(cut - 0.5), top, x(cut - 0.5), height - bottom)
        for cut in one.transitions(i)
    ]
    parts += [
        f'<polygon class="band" points="{drawing.points(edge)}"/>',
        f'<polyline class="line after" points="{drawing.points(line)}"/>',
        drawing.line("majority", left, y(0), width - right, y(0)),
        drawing.words("tick", left, height - 7, "start", f"layer {rows[0][0]}"),
        drawing.words("tick", width - right, height - 7, "end", f"layer {rows[-1][0]}"),
    ]
    return drawing.svg("curve", width, height, label, parts)
