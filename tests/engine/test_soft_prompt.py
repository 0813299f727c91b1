"""A soft prompt before every sequence: exact against embeddings that are put before it one at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, LlamaConfig, Qwen2Config

from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import Layout
from forgetmenot.errors import UserError
from forgetmenot.models.adapt import adapt
from forgetmenot.models.adapters.prompt import drawn_rows, soft_prompt, with_parts
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.models.weights import load_weights, save_weights
from forgetmenot.prompting.encoded import Encoded, TokenSequence

SIZES = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = SIZES | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64}
CONFIGS = {
    "llama": LlamaConfig(**LLAMA),
    "gpt2": GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "qwen2": Qwen2Config(**LLAMA),
}
PROMPT = AdapterSettings(kind="prompt", tokens=5)
NEW = AdapterSettings(kind="prompt", tokens=3, per_stage="new")


def _behind_two(model: Any) -> Any:
    """A model with prompts of 5 and 3 tokens, of which the second learns."""
    return adapt(adapt(model, PROMPT, 1, seed=1), NEW, 2, seed=2)


def _reference(model: Any, parts: list[Tensor], sequence: TokenSequence) -> Tensor:
    """The log-likelihood by the model alone, one sequence at a time, the prompt put before its embeddings."""
    rows = torch.cat(parts)
    words = torch.nn.functional.embedding(torch.tensor(sequence.tokens), model.get_input_embeddings().weight)
    logits = model(inputs_embeds=torch.cat([rows, words])[None]).logits[0, len(rows) :]
    predicted = torch.arange(sequence.start, len(sequence.tokens))
    targets = torch.tensor(sequence.tokens)[predicted]
    found: Tensor = logits.log_softmax(-1)[predicted - 1, targets].sum()
    return found


@pytest.mark.parametrize("layout", ["trie", "padded", "single"])
@pytest.mark.parametrize("name", CONFIGS)
def test_log_likelihoods_and_gradients_are_those_of_one_at_a_time(
    build: Callable[[Any], Any], sequences: list[TokenSequence], name: str, layout: Layout
) -> None:
    model = _behind_two(build(CONFIGS[name]))
    learner = Learner(model, None, budget=40, layout=layout, training_layout=layout)
    prompt = soft_prompt(model)
    assert prompt is not None
    parts = list(prompt.parts)
    truth = torch.stack([_reference(model, parts, one) for one in sequences])
    assert learner.log_likelihoods(sequences).tolist() == pytest.approx(truth.tolist(), rel=1e-5, abs=1e-5)

    weights = torch.linspace(0.5, 1.5, len(sequences))
    (wanted,) = torch.autograd.grad((truth * weights).sum(), [parts[1]])
    for indices in learner.cut(sequences):
        found = learner.forward([sequences[k] for k in indices])
        (found * weights[indices]).sum().backward()  # type: ignore[no-untyped-call]
    assert set(learner.trainable()) == {"soft_prompt.parts.1"}
    (gradient,) = learner.gathered().values()
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


def test_fewer_parts_answer_as_when_there_were_no_more(
    build: Callable[[Any], Any], sequences: list[TokenSequence]
) -> None:
    bare = Learner(build(CONFIGS["llama"]), None, budget=64).log_likelihoods(sequences)
    first = Learner(adapt(build(CONFIGS["llama"]), PROMPT, 1, seed=1), None, budget=64)
    both = Learner(_behind_two(build(CONFIGS["llama"])), None, budget=64)
    with with_parts(both.model, 1):
        assert torch.equal(both.log_likelihoods(sequences), first.log_likelihoods(sequences))
    with with_parts(both.model, 0):
        assert torch.equal(both.log_likelihoods(sequences), bare)
    assert not torch.allclose(both.log_likelihoods(sequences), first.log_likelihoods(sequences))


def test_the_prompt_is_computed_once_where_all_that_is_scored_shares_it(
    build: Callable[[Any], Any], sequences: list[TokenSequence]
) -> None:
    learner = Learner(_behind_two(build(CONFIGS["llama"])), None, budget=16)
    arranged = learner.arrange(sequences)
    assert len(arranged.packs) > 1
    assert arranged.prefix[:8] == (-1, -2, -3, -4, -5, -6, -7, -8)
    distinct = {one.tokens[: k + 1] for one in sequences for k in range(len(one.tokens) - 1)}
    assert arranged.computed >= 8 + len(distinct)
    assert sum(packed.nodes for _, packed in arranged.packs) < sum(8 + len(s.tokens) for s in sequences)


def test_greedy_answers_are_those_of_the_embeddings(
    build: Callable[[Any], Any], examples: list[Encoded], tiny_tokenizer: Any
) -> None:
    model = _behind_two(build(LlamaConfig(**LLAMA | {"vocab_size": len(tiny_tokenizer)})))
    prompt = soft_prompt(model)
    assert prompt is not None
    learner = Learner(model, tiny_tokenizer, budget=64)
    prompts = [example.prompt for example in examples[:4]]
    rows, weight = torch.cat(list(prompt.parts)), model.get_input_embeddings().weight
    truth = []
    for tokens in prompts:
        written = list(tokens)
        for _ in range(5):
            embedded = torch.cat([rows, weight[torch.tensor(written)]])[None]
            written.append(int(model(inputs_embeds=embedded).logits[0, -1].argmax()))
        truth.append(tiny_tokenizer.decode(written[len(tokens) :], skip_special_tokens=True))
    assert learner.generate(prompts, 5) == truth


def test_a_prompt_begins_as_words_and_only_its_last_part_learns(build: Callable[[Any], Any]) -> None:
    model = build(CONFIGS["llama"])
    rows = drawn_rows(model, 4, seed=3)
    vocabulary = model.get_input_embeddings().weight
    assert all((vocabulary == row).all(1).any() for row in rows)
    assert torch.equal(rows, drawn_rows(model, 4, seed=3))
    model = adapt(model, PROMPT, 1, seed=1)
    assert adapt(model, PROMPT, 2, seed=2) is model  # continue: the same prompt goes on
    prompt = soft_prompt(model)
    assert prompt is not None
    assert [len(part) for part in prompt.parts] == [5]
    _behind_two(model)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["soft_prompt.parts.1"]


def test_it_is_saved_without_the_model_and_loaded_as_it_was(
    build: Callable[[Any], Any], sequences: list[TokenSequence], tmp_path: Path
) -> None:
    before = Learner(_behind_two(build(CONFIGS["llama"])), None, budget=64)
    save_weights(before.model, AdapterSettings(kind="prompt"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["prompt"]
    loaded = load_weights(build(CONFIGS["llama"]), tmp_path, trainable=True)
    after = Learner(loaded, None, budget=64)
    assert not after.trainable()  # what learns is chosen by `adapt`
    assert torch.equal(after.log_likelihoods(sequences), before.log_likelihoods(sequences))


def test_what_does_not_fit_behind_the_prompt_is_said(build: Callable[[Any], Any]) -> None:
    learner = Learner(_behind_two(build(CONFIGS["llama"])), None, budget=64)
    assert learner.forward([TokenSequence(tuple(range(57)), 1)]).isfinite().all()
    with pytest.raises(UserError, match=r"training.max_length to at most 56"):
        learner.forward([TokenSequence(tuple(range(58)), 1)])
