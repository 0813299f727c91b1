"""SELF-GUIDE's requests in a run: what cannot fit the model is said before it trains."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods.self_guide_replay import SelfGuideReplay, SelfGuideReplayOptions
from forgetmenot.methods.shared.method import Stage
from forgetmenot.prompting import Prompt
from forgetmenot.prompting.wording import Wording
from forgetmenot.tasks import Example, Task

ROWS = [
    Example(f"train-{k}", {"word": word}, label="cat") for k, word in enumerate(("tabby", "kitten", "tom"))
]


def test_rounds_that_would_not_count_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"synthesis\.rounds: 5 would not count: candidates"):
        SelfGuideReplayOptions.model_validate({"synthesis": {"rounds": 5}})
    written = SelfGuideReplayOptions().model_dump()  # as a run's config.yaml has it
    assert SelfGuideReplayOptions.model_validate(written) == SelfGuideReplayOptions()


@pytest.mark.parametrize(("positions", "fits"), [(300, False), (4096, True)])
def test_demonstrations_that_are_too_long_are_refused_before_training(
    tiny_llama: Path, positions: int, fits: bool
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, max_position_embeddings=positions)
    prompt = Prompt("default", "Word: {{ word }}\nKind:", {"cat": "cat", "dog": "dog"})
    task = Task("animal", "choice", "accuracy", ROWS, [], [], labels=("cat", "dog"))
    wording = Wording(task, prompt, ROWS, tokenizer, 256)
    stage = Stage(1, ("animal",), data={"animal": wording.encode(ROWS)}, wordings={"animal": wording})
    method = SelfGuideReplay(SelfGuideReplayOptions(memory=2))
    learner = Learner(model, tokenizer, budget=512)
    if fits:
        method.begin(learner, stage)
        return
    with pytest.raises(
        UserError, match=r"context_tokens: .* take \d+ tokens, and prompts have fewer than 300"
    ):
        method.begin(learner, stage)
    SelfGuideReplay(SelfGuideReplayOptions(memory=0)).begin(learner, stage)  # nothing will be asked for
