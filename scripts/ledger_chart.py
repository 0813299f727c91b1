"""Tables of the ledger as pictures in files of their own, with their colours."""

from collections.abc import Sequence

from markupsafe import Markup

from forgetmenot.report.comparison import learned_and_kept
from forgetmenot.report.comparison.learned_and_kept import Balance, JointEnd, balance_picture
from forgetmenot.report.comparison.learned_and_left import WIDTH, Bar, bars_picture, picture_height

STYLE = """<style>
:root {
  --ink: #1b2433; --soft: #56627a; --rule: #dde4ef; --paper: #fbfcfe; --blue: #2f63b8; --rust: #b03c12;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6ebf4; --soft: #9eabc2; --rule: #2a3242; --paper: #12161f; --blue: #86b1f7; --rust: #f39a73;
  }
}
.paper { fill: var(--paper); }
text { font: 12px system-ui, sans-serif; fill: var(--soft); }
.name { fill: var(--ink); }
.grid { stroke: var(--rule); }
.majority { stroke: var(--soft); stroke-dasharray: 2 3; }
.drop { stroke: var(--rust); stroke-width: 3; }
.gain { stroke: var(--blue); stroke-width: 3; opacity: .5; }
.whisker { stroke: var(--soft); stroke-width: 1; }
.series { stroke: var(--blue); stroke-width: 1.5; opacity: .45; }
.learned { fill: var(--paper); stroke: var(--blue); stroke-width: 2; }
.left { fill: var(--blue); }
</style>"""


def chart(bars: Sequence[Bar], majority: float | None) -> str:
    """An SVG file: a line for each method, from what it learned (ring) to what is left in the end (dot).

    Args:
        bars: From the top down; at least one.
        majority: The mean score of always the commonest answer; dashed.
    """
    return _file(bars_picture(bars, majority, _under(WIDTH, picture_height(bars))))


def balance_chart(methods: Sequence[Balance], joint: JointEnd | None) -> str:
    """An SVG file: learning accuracy to the right, backward transfer upwards, a dot for each method."""
    under = _under(learned_and_kept.WIDTH, learned_and_kept.HEIGHT)
    return _file(balance_picture(methods, joint, under))


def _under(width: int, height: int) -> list[str]:
    return [STYLE, f'<rect class="paper" width="{width}" height="{height}"/>']


def _file(picture: Markup) -> str:
    return str(picture).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"
