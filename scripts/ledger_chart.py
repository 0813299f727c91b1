"""One table of the ledger as a picture in a file of its own, with its colours."""

from collections.abc import Sequence

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
.learned { fill: var(--paper); stroke: var(--blue); stroke-width: 2; }
.left { fill: var(--blue); }
</style>"""


def chart(bars: Sequence[Bar], majority: float | None) -> str:
    """An SVG file: a line for each method, from what it learned (ring) to what is left in the end (dot).

    Args:
        bars: From the top down; at least one.
        majority: The mean score of always the commonest answer; dashed.
    """
    paper = f'<rect class="paper" width="{WIDTH}" height="{picture_height(bars)}"/>'
    svg = str(bars_picture(bars, majority, [STYLE, paper]))
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"
