"""TRACE's recipes say what the paper says, and nothing that a run would refuse."""

from pathlib import Path

import pytest

from forgetmenot.config import RunConfig, load_config
from forgetmenot.methods import make_method
from forgetmenot.studies.config import expand_study, load_study
from forgetmenot.tasks import expand

RECIPES = Path(__file__).parents[1] / "recipes"
PASSES = [5, 3, 7, 5, 3, 5, 5, 7]
BASELINES = [run.config for run in expand_study(load_study(RECIPES / "trace-baselines.yaml"))]
CONFIGS = {f"baseline-{k}": config for k, config in enumerate(BASELINES)} | {
    name: load_config(RECIPES / f"trace-{name}.yaml") for name in ("500", "5000", "rcl")
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_recipe_names_tasks_and_options_that_there_are(config: RunConfig) -> None:
    tasks = expand(config.tasks)
    method = make_method(config.method.name, config.method.options, config.seed)
    method.check(config.adapter)
    learned = [task for stage in method.stages(tasks) for task in stage.tasks]
    assert learned == [task for task in tasks if not task.startswith("lima")]
    assert len(learned) == 8
    assert config.training.schedule == "constant"
    if isinstance(config.training.epochs, dict):
        assert [config.training.epochs[task] for task in learned] == PASSES


def test_the_settings_are_the_papers() -> None:
    full, lora, replay, *_ = BASELINES
    assert lora.model_copy(update={"output": CONFIGS["5000"].output}) == CONFIGS["5000"]
    assert (lora.adapter.rank, lora.adapter.alpha, lora.adapter.dropout) == (8, 32, 0.1)
    assert (lora.training.learning_rate, lora.training.batch_size) == (1e-4, 128)
    assert (full.adapter.kind, full.training.learning_rate) == ("full", 1e-5)
    assert replay.method.options == {"memory": 0.1, "share": "all", "sources": ["lima-500"]}


def test_examples_in_the_prompt_need_no_training() -> None:
    config = load_config(RECIPES / "trace-icl.yaml")
    assert config.training.limit == 0
    asked = {*config.tasks, *config.evaluation.also_score}
    assert asked == set(expand(["trace-500"]))
    assert isinstance(config.demonstrations.count, dict)
    assert config.demonstrations.count.keys() <= asked
