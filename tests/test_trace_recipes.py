"""TRACE's recipes say what the paper says, and nothing that a run would refuse."""

from pathlib import Path

import pytest

from forgetmenot.config import load_config
from forgetmenot.methods import make_method
from forgetmenot.tasks import expand

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("trace-*.yaml"))
PASSES = [5, 3, 7, 5, 3, 5, 5, 7]


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_recipe_names_tasks_and_options_that_there_are(path: Path) -> None:
    config = load_config(path)
    tasks = expand(config.tasks)
    method = make_method(config.method.name, config.method.options, config.seed)
    method.check(config.adapter)
    learned = [task for stage in method.stages(tasks) for task in stage.tasks]
    assert learned == [task for task in tasks if not task.startswith("lima")]
    assert len(learned) == 8
    assert config.training.schedule == "constant"
    if isinstance(config.training.epochs, dict):
        assert [config.training.epochs[task] for task in learned] == PASSES


def test_the_paper_s_settings() -> None:
    lora = load_config(Path(RECIPES[0].parent / "trace-5000.yaml"))
    assert (lora.adapter.rank, lora.adapter.alpha, lora.adapter.dropout) == (8, 32, 0.1)
    assert (lora.training.learning_rate, lora.training.batch_size) == (1e-4, 128)
    full = load_config(Path(RECIPES[0].parent / "trace-seqft.yaml"))
    assert (full.adapter.kind, full.training.learning_rate) == ("full", 1e-5)
    replay = load_config(Path(RECIPES[0].parent / "trace-replay.yaml"))
    assert replay.method.options == {"memory": 0.1, "share": "all", "sources": ["lima-500"]}
