from collections.abc import Sequence
from xml.etree import ElementTree

import pytest

from forgetmenot.report.figures import curve, dumbbell, loss_line, score_scale


def draw(
    scores: Sequence[float | None],
    own: int | None = 1,
    connected: bool = True,
    labels: Sequence[str] | None = None,
) -> ElementTree.Element:
    names = labels or ["base", *(f"t{i}" for i in range(1, len(scores)))]
    spans = [(score - 0.02, score + 0.02) if score is not None else None for score in scores]
    markup = curve(scores, spans, names, own, 0.5, (0.4, 1.0), connected, "a curve")
    return ElementTree.fromstring(markup)


def kinds(figure: ElementTree.Element, tag: str) -> list[str]:
    return [part.attrib["class"] for part in figure.iter(tag)]


def test_a_curve_has_a_point_per_stage_a_band_and_a_mark() -> None:
    figure = draw([0.5, 0.9, 0.8, 0.7])
    assert kinds(figure, "circle") == ["dot before", "dot own", "dot after", "dot after"]
    assert kinds(figure, "polyline") == ["line before", "line after"]
    assert kinds(figure, "polygon") == ["band"]
    assert kinds(figure, "line").count("trained") == 1
    assert kinds(figure, "line").count("majority") == 1
    assert figure.attrib["aria-label"] == "a curve"


def test_higher_scores_stand_higher() -> None:
    low, high = (float(dot.attrib["cy"]) for dot in draw([0.5, 0.9]).iter("circle"))
    assert high < low


def test_a_missing_score_breaks_the_line() -> None:
    figure = draw([0.5, 0.9, None, 0.7, 0.6])
    assert len(list(figure.iter("circle"))) == 4
    assert kinds(figure, "polyline") == ["line before", "line after"]
    ends = [part.attrib["points"].count(",") for part in figure.iter("polyline")]
    assert ends == [2, 2]


def test_stages_that_stand_alone_get_no_line() -> None:
    figure = draw([0.5, 0.9, 0.5], connected=False)
    assert list(figure.iter("polyline")) == []
    assert kinds(figure, "line").count("whisker") == 3


def test_a_task_without_training_has_no_mark() -> None:
    assert "trained" not in kinds(draw([0.5, 0.6], own=None), "line")


def test_long_stage_names_become_numbers() -> None:
    figure = draw(
        [0.5, 0.6, 0.7], labels=["base", "a-very-long-stage-name-here", "another-very-long-stage-name"]
    )
    assert [text.text for text in figure.iter("text")][-4:-1] == ["0", "1", "2"]


def test_labels_are_escaped() -> None:
    figure = draw([0.5, 0.6], labels=["<b>", "&"])
    assert "<b>" in [text.text for text in figure.iter("text")]
    markup = dumbbell(0.1, 0.2, 0.3, majority=None, scale=(0, 1), lost=False, label='"><script>')
    assert "<script>" not in markup


def test_a_dumbbell_marks_a_drop() -> None:
    def drawn(*values: float | None, lost: bool) -> ElementTree.Element:
        markup = dumbbell(*values, majority=0.5, scale=(0.4, 1.0), lost=lost, label="x")
        return ElementTree.fromstring(markup)

    assert "drop" in kinds(drawn(0.5, 0.9, 0.6, lost=True), "line")
    assert "drop" not in kinds(drawn(0.5, 0.8, 0.9, lost=False), "line")
    assert list(drawn(None, None, None, lost=False).iter("circle")) == []


def test_a_long_training_is_averaged_down() -> None:
    figure = ElementTree.fromstring(loss_line([(float(i), 1.0) for i in range(10_000)], 2.0, "x"))
    (line,) = figure.iter("polyline")
    assert 100 < line.attrib["points"].count(",") <= 160
    assert len({point.split(",")[1] for point in line.attrib["points"].split()}) == 1


def test_one_logged_step_is_drawn() -> None:
    assert len(list(ElementTree.fromstring(loss_line([(1.0, 2.0)], 2.0, "x")).iter("polyline"))) == 1


@pytest.mark.parametrize(
    ("values", "scale"),
    [([0.52, 0.93], (0.5, 1.0)), ([0.5, 0.93], (0.4, 1.0)), ([1.0], (0.9, 1.0)), ([-0.05, 0.4], (-0.1, 1.0))],
)
def test_scores_share_an_axis_of_whole_tenths(values: list[float], scale: tuple[float, float]) -> None:
    assert score_scale(values) == pytest.approx(scale)


def test_an_unbounded_score_gets_a_margin() -> None:
    low, high = score_scale([-3.0, -2.0])
    assert low < -3.0
    assert high > -2.0
    assert score_scale([-3.0]) == (-4.0, -2.0)
