"""A real model with a bridge to a small one of another tokenizer, trained on real text.

FMN_REAL_MODELS names the folder that holds smollm2-135m-instruct/ and base-4m/, FORGETMENOT_DATA the one with
glue/; without them the test is skipped.
"""

import json
import os
from pathlib import Path

import pytest
import torch

import forgetmenot
from forgetmenot.config import read_resolved
from forgetmenot.engine.learner import Learner
from forgetmenot.models.load import load_model
from forgetmenot.models.settings import ModelSettings
from forgetmenot.models.weights import load_weights
from forgetmenot.prompting.encoded import TokenSequence

pytestmark = pytest.mark.slow

FOLDER = Path(os.environ.get("FMN_REAL_MODELS", Path.home() / ".cache" / "forgetmenot-models"))
ANCHOR, AUGMENTING = FOLDER / "smollm2-135m-instruct", FOLDER / "base-4m"
DATA = Path(os.environ.get("FORGETMENOT_DATA", "data"))
TEXT = (
    "A naïve story, told with 'unbelievable' charm – 日本 and back; nobody knew antidisestablishmentarianism."
)


@pytest.fixture(autouse=True)
def _all_is_here() -> None:
    for path in (ANCHOR, AUGMENTING, DATA / "glue"):
        if not path.is_dir():
            pytest.skip(
                f"{path} is not on this machine; FMN_REAL_MODELS and FORGETMENOT_DATA name the folders"
            )


def test_it_learns_and_is_saved(tmp_path: Path) -> None:
    config = {
        "model": str(ANCHOR),
        "tasks": "sst2",
        "data_dir": str(DATA),
        "adapter": {"kind": "bridge", "augmenting": str(AUGMENTING), "connections": 4},
        "training.limit": 512,
        "evaluation.limit": 32,
        "output": str(tmp_path / "run"),
    }
    run = forgetmenot.run(config)
    lines = (run.path / "stages/01-sst2/training.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert sum(losses[-4:]) < 0.2 * sum(losses[:4])
    identity = json.loads((run.path / "environment.json").read_text())["identity"]
    assert identity["layout"] == "trie"
    assert identity["prefix_cache"]

    loaded = load_model(
        read_resolved(run.path / "config.yaml").model, trainable=False, device=torch.device("cpu")
    )
    model = load_weights(loaded.model, run.path / "stages/01-sst2", trainable=False)
    tokens = tuple(loaded.tokenizer(TEXT)["input_ids"])
    sequences = [TokenSequence(tokens[:k], 1) for k in (9, 20, len(tokens))]
    learner = Learner(model, loaded.tokenizer, budget=256)
    trie = learner.log_likelihoods(sequences)
    learner.layout = "single"
    assert trie.tolist() == pytest.approx(learner.log_likelihoods(sequences).tolist(), rel=1e-4)
    plain = load_model(ModelSettings(name=str(ANCHOR)), trainable=False, device=torch.device("cpu"))
    alone = Learner(plain.model, loaded.tokenizer, budget=256).log_likelihoods(sequences)
    assert not torch.allclose(trie, alone, atol=0.1)
