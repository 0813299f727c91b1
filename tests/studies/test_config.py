"""A study's file becomes runs: the grid, its orders, and what is refused before anything runs."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from forgetmenot.config import load_config
from forgetmenot.errors import UserError
from forgetmenot.studies.config import StudyRun, expand_study, load_study

RECIPES = Path(__file__).parents[2] / "recipes"
THREE = "sst2,mrpc,cola"
GLUE4 = ("sst2", "mrpc", "cola", "mnli")


def _runs(grid: Mapping[str, Any], **study: Any) -> list[StudyRun]:
    return expand_study(load_study({"grid": grid, **study}))


def test_a_grid_is_every_combination_the_last_key_fastest() -> None:
    runs = _runs({"method": ["sequential", "joint"], "seed": [0, 7, 3]})
    assert [(run.config.method.name, run.config.seed) for run in runs] == [
        *[("sequential", seed) for seed in (0, 7, 3)],
        *[("joint", seed) for seed in (0, 7, 3)],
    ]
    assert runs[1].varies == {"method": "sequential", "seed": 7}
    assert runs[1].title == "method=sequential, seed=7"


def test_a_run_is_the_base_with_its_point_of_the_grid_over_it() -> None:
    base = {"model": "m", "tasks": THREE, "adapter": {"kind": "full"}, "training.epochs": 2}
    grid = {"training.learning_rate": [1e-4, "auto"], "prompt": [{"sst2": "terse"}]}
    first, second = _runs(grid, base=base)
    for run, rate in ((first, 1e-4), (second, "auto")):
        alone = load_config(None, {**base, "training.learning_rate": rate, "prompt": {"sst2": "terse"}})
        assert run.config == alone.model_copy(update={"output": run.config.output})


def test_a_method_may_bring_options_and_a_key_of_its_own_may_vary_beside_it() -> None:
    runs = _runs({"method.strength": [1, 2], "method": ["a", {"name": "b", "decay": 0.5}]})
    assert [run.config.method.model_dump() for run in runs] == [
        {"name": "a", "strength": 1},
        {"name": "b", "decay": 0.5, "strength": 1},
        {"name": "a", "strength": 2},
        {"name": "b", "decay": 0.5, "strength": 2},
    ]
    assert runs[1].title == "method.strength=1, method=b (decay 0.5)"


def test_keys_with_commas_between_vary_together() -> None:
    runs = _runs({"method, adapter": [["joint", {"kind": "full"}], ["o-lora", {"rank": 4}]], "seed": [0, 1]})
    assert [(r.config.method.name, r.config.adapter.kind, r.config.seed) for r in runs] == [
        ("joint", "full", 0),
        ("joint", "full", 1),
        ("o-lora", "lora", 0),
        ("o-lora", "lora", 1),
    ]
    assert runs[3].varies == {"method": "o-lora", "adapter": {"rank": 4}, "seed": 1}
    assert runs[3].config.adapter.rank == 4


def test_tasks_may_vary_with_another_key_and_have_an_order() -> None:
    orders = {"random": 2}
    runs = _runs({"order": orders, "tasks, training.limit": [["sst2,mrpc", 8], ["cola,mnli", 16]]})
    assert [(sorted(r.config.tasks), r.config.training.limit) for r in runs] == [
        *[(["mrpc", "sst2"], 8)] * 2,
        *[(["cola", "mnli"], 16)] * 2,
    ]


def test_permutations_are_all_orders_of_the_base() -> None:
    runs = _runs({"order": "permutations"}, base={"tasks": THREE})
    assert [run.config.tasks for run in runs] == list(itertools.permutations(("sst2", "mrpc", "cola")))


def test_random_orders_differ_and_are_the_same_for_every_method_and_every_time() -> None:
    grid = {"method": ["sequential", "joint"], "order": {"random": 5}}
    runs = _runs(grid, base={"tasks": "glue4"})
    orders = [run.config.tasks for run in runs]
    assert orders[:5] == orders[5:]
    assert len(set(orders)) == 5
    assert all(sorted(order) == sorted(GLUE4) for order in orders)
    assert orders == [run.config.tasks for run in _runs(grid, base={"tasks": "glue4"})]
    every = _runs({"order": {"random": 24}}, base={"tasks": "glue4"})
    assert {run.config.tasks for run in every} == set(itertools.permutations(GLUE4))


def test_orders_may_be_written_out() -> None:
    runs = _runs({"order": [["cola", "mrpc", "sst2"], THREE]}, base={"tasks": THREE})
    assert [run.config.tasks for run in runs] == [("cola", "mrpc", "sst2"), ("sst2", "mrpc", "cola")]
    assert runs[1].varies == {"order": ["sst2", "mrpc", "cola"]}


def test_an_order_is_one_of_the_tasks_that_the_grid_chooses() -> None:
    runs = _runs({"order": "permutations", "tasks": ["sst2,mrpc", ["cola", "mnli"]]})
    assert [run.config.tasks for run in runs] == [
        ("sst2", "mrpc"),
        ("mrpc", "sst2"),
        ("cola", "mnli"),
        ("mnli", "cola"),
    ]


def test_every_run_lies_in_the_study_s_directory_which_the_base_names() -> None:
    short, long = ({"seed": list(range(count))} for count in (2, 3))
    runs = _runs(long, name="mine")
    study = load_study({"name": "mine", "grid": short})
    assert study.directory.parent == Path("studies")
    assert study.directory.name.startswith("mine-")
    assert {run.config.directory.parent for run in runs} == {study.directory / "runs"}
    assert [one.config for one in expand_study(study)] == [one.config for one in runs[:2]]
    other = load_study({"name": "mine", "grid": short, "base": {"training": {"epochs": 2}}})
    assert other.directory != study.directory
    braces = load_study({"grid": short, "output": "a{{b}}"})
    assert {run.config.directory.parent for run in expand_study(braces)} == {Path("a{b}/runs")}


def test_the_file_names_the_study_and_the_command_line_beats_it(tmp_path: Path) -> None:
    path = tmp_path / "my study.yaml"
    path.write_text("base: {training: {epochs: 3}, model: m}\ngrid: {seed: [0]}\n", encoding="utf-8")
    overrides = {"base.training.epochs": 5, "grid.training.limit": [8, 16], "output": "out"}
    study = load_study(path, overrides)
    assert (study.name, study.directory) == ("my-study", Path("out"))
    runs = expand_study(study)
    assert [(r.config.training.epochs, r.config.training.limit, r.config.model.name) for r in runs] == [
        (5, 8, "m"),
        (5, 16, "m"),
    ]
    written = tmp_path / "again.yaml"
    written.write_text(study.to_yaml(), encoding="utf-8")
    assert load_study(written) == study


WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no grid": ({}, ["grid"]),
    "an empty grid": ({"grid": {}}, ["grid"]),
    "an unknown key": ({"gird": {"seed": [0]}, "grid": {"seed": [0]}}, ["gird", "'grid'"]),
    "an unknown resource": ({"grid": {"seed": [0]}, "resources": {"cpu": 1}}, ["resources.cpu", "'cpus'"]),
    "an empty axis": ({"grid": {"seed": []}}, ["grid.seed", "a list"]),
    "an axis that is no list": ({"grid": {"method": "joint"}}, ["grid.method", "'joint'"]),
    "an unknown axis": ({"grid": {"sed": [0]}}, ["grid.sed", "'seed'"]),
    "a key on two axes": (
        {"grid": {"seed": [0], "method, seed": [["joint", 1]]}},
        ["method, seed", "named once"],
    ),
    "an order beside another key": ({"grid": {"order, seed": [["sst2", 1]]}}, ["order", "separate key"]),
    "too few values for two keys": (
        {"grid": {"method, adapter": [["joint"]]}},
        ["grid.method, adapter", "2 values", "['joint']"],
    ),
    "an unknown key below": (
        {"grid": {"training.epoch": [1]}},
        ["run 1 of 1 (training.epoch=1)", "'epochs'"],
    ),
    "a value that does not fit": (
        {"grid": {"method": ["joint"], "seed": [0, -1]}},
        ["run 2 of 2 (method=joint, seed=-1)", "seed: "],
    ),
    "a wrong base": ({"base": {"seeds": 1}, "grid": {"seed": [0]}}, ["base", "'seed'"]),
    "an output in the base": ({"base": {"output": "x"}, "grid": {"seed": [0]}}, ["base.output"]),
    "an output in the grid": ({"grid": {"output": ["x"]}}, ["grid.output"]),
    "a run that comes twice": (
        {"grid": {"method": ["joint", {"name": "joint"}]}},
        ["run 2 of 2", "same run as that of method=joint"],
    ),
    "an order of other tasks": ({"grid": {"order": [["sst2"]]}}, ["grid.order", "qs-sentiment"]),
    "an order of unknown tasks": ({"grid": {"order": [["sst3"]]}}, ["'sst3'", "'sst2'"]),
    "an unknown word for orders": ({"grid": {"order": "all"}}, ["grid.order", "permutations", "'all'"]),
    "no number of orders": ({"grid": {"order": {"random": 0}}}, ["grid.order", "{random: k}"]),
    "more orders than there are": ({"grid": {"order": {"random": 25}}}, ["grid.order", "24", "25"]),
    "orders without number": (
        {"base": {"tasks": "glue4,quickstart"}, "grid": {"order": "permutations"}},
        ["8 tasks have 40320 orders", "{random: 10}"],
    ),
    "a placeholder that is none": ({"grid": {"seed": [0]}, "output": "{seed}"}, ["output", "{name}, {hash}"]),
    "a name that is a path": ({"grid": {"seed": [0]}, "name": "a/b"}, ["name", "'a/b'"]),
}


@pytest.mark.parametrize(("study", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_study_is_one_sentence(study: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        expand_study(load_study(study))
    assert [words for words in says if words not in str(caught.value)] == []
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(RECIPES.glob("*.yaml")) if "grid" in yaml.safe_load(path.read_text())],
    ids=lambda path: path.name,
)
def test_every_recipe_of_a_study_loads_and_expands(path: Path) -> None:
    study = load_study(path)
    assert study.name == path.stem
    assert len(expand_study(study)) > 1


def test_published_figures_are_known_before_anything_runs() -> None:
    assert load_study({"grid": {"seed": [0]}, "published": "trace"}).published == "trace"
    with pytest.raises(
        UserError, match=r"published: there are no figures 'haque'. .*Known: .*haque-2025, .*trace"
    ):
        load_study({"grid": {"seed": [0]}, "published": "haque"})


def test_a_key_of_the_base_that_is_overridden_hides_no_other_one() -> None:
    study = load_study(
        {"base": {"training.limit": 100, "training.epochs": 3, "tasks": "quickstart"}, "grid": {"seed": [0]}},
        {"base.training.epochs": 1},
    )
    assert (study.base_config.training.limit, study.base_config.training.epochs) == (100, 1)
