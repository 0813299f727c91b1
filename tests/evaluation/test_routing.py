"""What a probe asks of a method that routes: each sequence is answered by the part for its prompt."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from forgetmenot.engine.learner import Learner, Snapshot
from forgetmenot.evaluation.routing import RoutedLearner
from forgetmenot.methods import Method
from forgetmenot.prompting.encoded import TokenSequence


class ByFirstToken(Method):
    """Two sets of weights: prompts that begin with an even token are answered by the first of them."""

    def __init__(self, parts: dict[str, Snapshot]) -> None:
        self.parts = parts

    def route(self, learner: Learner, prompts: Sequence[tuple[int, ...]]) -> list[str]:
        return ["odd" if prompt[0] % 2 else "even" for prompt in prompts]

    @contextmanager
    def routed(self, learner: Learner, part: str) -> Iterator[None]:
        with learner.with_weights(self.parts[part]):
            yield


@pytest.fixture
def learner() -> Learner:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.2,
    )
    return Learner(AutoModelForCausalLM.from_config(config).eval(), tokenizer=None, budget=20)


def test_states_and_divergences_are_those_of_each_part(learner: Learner) -> None:
    generator = torch.Generator().manual_seed(1)
    sequences = []
    for k in range(9):
        tokens = torch.randint(3, 50, (4 + k,), generator=generator).tolist()
        sequences.append(TokenSequence((2 + k % 2, *tokens), 2 + k % 3))
    base, head = learner.states(sequences), learner.head()
    parts: dict[str, Any] = {}
    for part in ("even", "odd"):
        parts[part] = {n: p + torch.randn_like(p) * 0.1 for n, p in learner.snapshot().items()}
    kept = learner.snapshot()
    routed = RoutedLearner(learner, ByFirstToken(parts))
    head = type(head)(head.weight.clone())
    states, values = routed.states(sequences), routed.divergences(sequences, base, head)
    likely = routed.token_log_likelihoods(sequences)
    counts = [len(one.tokens) - one.start for one in sequences]
    alone = []
    for k, one in enumerate(sequences):
        with learner.with_weights(parts["odd" if k % 2 else "even"]):
            alone.append(
                (
                    learner.states([one]),
                    learner.divergences([one], torch.split(base, counts)[k], head),
                    learner.token_log_likelihoods([one]),
                )
            )
    columns = [torch.cat(column) for column in zip(*alone, strict=True)]
    for found, wanted, close in zip((states, values, likely), columns, (1e-5, 1e-6, 1e-5), strict=True):
        assert torch.allclose(found, wanted, atol=close)
    with pytest.raises(TypeError, match="without gradients"):
        routed.forward_tokens(sequences)
    assert values.min() > 0
    assert all(torch.equal(value, kept[name]) for name, value in learner.snapshot().items())
    prompts = [one.tokens for one in sequences]
    assert routed.hidden(prompts).shape == (9, 16)
    assert torch.allclose(routed.hidden(prompts)[0], _last(learner, parts["even"], prompts[0]), atol=1e-5)


def _last(learner: Learner, weights: Snapshot, prompt: tuple[int, ...]) -> torch.Tensor:
    with learner.with_weights(weights), torch.no_grad():
        found = learner.model(input_ids=torch.tensor([prompt]), output_hidden_states=True)
    state: torch.Tensor = found.hidden_states[-1][0, -1]
    return state
