"""Exactness: every architecture on the trie against plain PyTorch on one sequence at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor

from forgetmenot.engine.forward import edge_log_probs
from forgetmenot.engine.guard import choose_layout
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import Layout, pack
from forgetmenot.prompting.encoded import TokenSequence

Build = Callable[[Any], Any]
Gradients = dict[str, Tensor]

V = 97
LLAMA_LIKE = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
MULTI_HEAD = {key: value for key, value in LLAMA_LIKE.items() if key != "num_key_value_heads"}
GPT = {
    "vocab_size": V,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
OPT = {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0, "pad_token_id": 2}
WINDOW = 5  # shorter than most of the sequences

ON_THE_TRIE: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**LLAMA_LIKE),
    "qwen2": lambda: transformers.Qwen2Config(**LLAMA_LIKE),
    "qwen2-sliding": lambda: transformers.Qwen2Config(
        **LLAMA_LIKE, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
    ),
    "qwen3": lambda: transformers.Qwen3Config(**LLAMA_LIKE, head_dim=8),
    "phi": lambda: transformers.PhiConfig(**LLAMA_LIKE),
    "phi3": lambda: transformers.Phi3Config(**LLAMA_LIKE),
    "phi3-sliding": lambda: transformers.Phi3Config(**LLAMA_LIKE, sliding_window=WINDOW),
    "gemma2": lambda: transformers.Gemma2Config(**LLAMA_LIKE, head_dim=8, sliding_window=WINDOW),
    "gemma3": lambda: transformers.Gemma3TextConfig(**LLAMA_LIKE, head_dim=8, sliding_window=WINDOW),
    "mistral-sliding": lambda: transformers.MistralConfig(**LLAMA_LIKE, sliding_window=WINDOW),
    "gpt2": lambda: transformers.GPT2Config(**GPT),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**MULTI_HEAD),
    "gptj": lambda: transformers.GPTJConfig(**GPT, rotary_dim=4),
    "opt": lambda: transformers.OPTConfig(**{**MULTI_HEAD, **OPT}),
    "falcon": lambda: transformers.FalconConfig(**MULTI_HEAD, alibi=False),
}
OFF_THE_TRIE: dict[str, Callable[[], Any]] = {
    "bloom": lambda: transformers.BloomConfig(vocab_size=V, hidden_size=32, n_layer=3, n_head=4),
    "falcon-alibi": lambda: transformers.FalconConfig(**MULTI_HEAD, alibi=True),
    "mamba": lambda: transformers.MambaConfig(
        vocab_size=V, hidden_size=32, num_hidden_layers=2, state_size=4
    ),
}


def plain(model: Any, sequence: TokenSequence) -> Tensor:
    """The oracle: the whole sequence through the model, all logits, log-softmax in fp64, sum of the tail."""
    logits = model(input_ids=torch.tensor([sequence.tokens])).logits[0]
    log_probs = logits.double().log_softmax(-1)
    positions = range(sequence.start, len(sequence.tokens))
    return torch.stack([log_probs[p - 1, sequence.tokens[p]] for p in positions]).sum()


def with_gradients(model: Any, log_likelihoods: Tensor) -> tuple[Tensor, Gradients]:
    """The values and, for each parameter, the gradient of their sum."""
    model.zero_grad()
    log_likelihoods.sum().backward()  # type: ignore[no-untyped-call]
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return log_likelihoods.detach().double(), gradients


def assert_equal(got: tuple[Tensor, Gradients], truth: tuple[Tensor, Gradients]) -> None:
    assert ((got[0] - truth[0]).abs() / truth[0].abs()).max() < 1e-5
    assert got[1].keys() == truth[1].keys()
    norm = torch.cat([g.flatten() for g in truth[1].values()]).norm()
    assert norm > 1, "the models must be sensitive, or agreement says nothing"
    for name, gradient in truth[1].items():
        assert (got[1][name] - gradient).norm() < 1e-5 * norm, name


def one_by_one(model: Any, sequences: Sequence[TokenSequence]) -> tuple[Tensor, Gradients]:
    return with_gradients(model, torch.stack([plain(model, sequence) for sequence in sequences]))


def in_layout(model: Any, sequences: Sequence[TokenSequence], layout: Layout) -> tuple[Tensor, Gradients]:
    learner = Learner(model, tokenizer=None, budget=64, layout=layout)
    packs = learner.cut(sequences)
    assert len(packs) > 1
    indices = torch.tensor([k for pack in packs for k in pack])
    values = torch.cat([learner.forward([sequences[k] for k in pack]) for pack in packs])
    return with_gradients(model, torch.empty_like(values).index_copy(0, indices, values))


@pytest.mark.parametrize("name", ON_THE_TRIE)
def test_likelihoods_and_gradients_equal_one_sequence_at_a_time(
    name: str, build: Build, sequences: list[TokenSequence]
) -> None:
    model = build(ON_THE_TRIE[name]())
    verdict = choose_layout(Learner(model, tokenizer=None, budget=512), sequences)
    assert (verdict.layout, verdict.reasons) == ("trie", {})
    assert verdict.difference < 1e-5
    truth = one_by_one(model, sequences)
    for layout in ("single", "trie", "blocks", "padded"):
        assert_equal(in_layout(model, sequences, layout), truth)


@pytest.mark.parametrize("name", [*ON_THE_TRIE, "bloom", "falcon-alibi"])
def test_the_states_of_all_layers_equal_those_of_one_prompt_at_a_time(
    name: str, build: Build, sequences: list[TokenSequence]
) -> None:
    """The last is what goes into the LM head; the one before it what the uppermost layer gives."""
    model = build((ON_THE_TRIE | OFF_THE_TRIE)[name]()).eval()
    prompts = [s.tokens[: s.start] for s in sequences]
    learner = Learner(model, tokenizer=None, budget=64, layout="trie" if name in ON_THE_TRIE else "padded")
    found = learner.layer_states(prompts)
    layers = model.config.get_text_config().num_hidden_layers
    for states, prompt in zip(found, prompts, strict=True):
        with torch.no_grad():
            out = model(input_ids=torch.tensor([prompt]), output_hidden_states=True).hidden_states
        assert len(states) == len(out) + 1 == layers + 2
        for place, alone in zip((*range(layers), layers + 1), out, strict=True):
            assert torch.allclose(states[place], alone[0, -1], atol=1e-5)
    assert not torch.allclose(found[:, layers], found[:, layers + 1], atol=1e-2), "a norm lies between"
    for layer in range(layers):
        assert torch.equal(learner.hidden(prompts, layer), found[:, layer])


def test_what_lies_above_an_asked_layer_is_not_computed(build: Build, sequences: list[TokenSequence]) -> None:
    model = build(ON_THE_TRIE["llama"]()).eval()
    passed: list[int] = []
    for number, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda *_, number=number: passed.append(number))
    learner = Learner(model, tokenizer=None, budget=4096)
    for layer, expected in ((1, [0]), (2, [0, 1]), (-1, [0, 1, 2])):
        passed.clear()
        learner.hidden([s.tokens for s in sequences], layer)
        assert passed == expected


@pytest.mark.parametrize("name", ON_THE_TRIE)
def test_continuing_from_a_prefix_equals_one_sequence_at_a_time(
    name: str, build: Build, sequences: list[TokenSequence]
) -> None:
    model = build(ON_THE_TRIE[name]())
    head = sequences[0].tokens
    behind = [TokenSequence(head + s.tokens, len(head) + s.start) for s in sequences]
    learner = Learner(model, tokenizer=None, budget=32)
    arranged = learner.arrange(behind)
    assert len(arranged.prefix) == len(head) > WINDOW
    assert len(arranged.packs) > 1
    with torch.no_grad():
        truth = torch.stack([plain(model, sequence) for sequence in behind])
    assert ((learner.log_likelihoods(arranged) - truth).abs() / truth.abs()).max() < 1e-5


@pytest.mark.parametrize("name", OFF_THE_TRIE)
def test_who_cannot_take_the_mask_falls_back_to_padded_rows(
    name: str, build: Build, sequences: list[TokenSequence]
) -> None:
    model = build(OFF_THE_TRIE[name]())
    verdict = choose_layout(Learner(model, tokenizer=None, budget=512), sequences)
    assert verdict.layout == "padded"
    assert verdict.difference < 1e-5
    assert list(verdict.reasons) == ["trie"]
    assert verdict.reasons["trie"].partition(": ")[2], "the reason is a sentence"
    truth = one_by_one(model, sequences)
    for layout in ("single", "padded"):
        assert_equal(in_layout(model, sequences, layout), truth)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gptj"])
def test_activation_checkpointing_changes_nothing(
    name: str, build: Build, sequences: list[TokenSequence]
) -> None:
    model = build(ON_THE_TRIE[name]())
    truth = in_layout(model, sequences, "trie")
    model.gradient_checkpointing_enable()
    model.train()
    assert_equal(in_layout(model, sequences, "trie"), truth)


ADAPTERS = {
    "all-linear": LoraConfig(target_modules="all-linear", init_lora_weights=False),
    "on the head": LoraConfig(target_modules=["q_proj", "lm_head"], init_lora_weights=False),
    "head trained": LoraConfig(
        target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False
    ),
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters_are_inside(kind: str, llama: Any, sequences: list[TokenSequence]) -> None:
    torch.manual_seed(0)
    before = one_by_one(llama, sequences)[0]
    model = get_peft_model(llama, ADAPTERS[kind])
    truth = one_by_one(model, sequences)
    assert (truth[0] - before).abs().max() > 0.1, "the adapters matter"
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert truth[1].keys() == learning, "and they alone learn"
    assert_equal(in_layout(model, sequences, "trie"), truth)


@pytest.mark.parametrize("layout", ["trie", "blocks", "padded"])
def test_a_sequence_without_predictions_counts_zero(llama: Any, layout: Layout) -> None:
    sequences = [TokenSequence((5, 6, 7), 2), TokenSequence((5, 8), 2)]
    learner = Learner(llama, tokenizer=None, budget=512, layout=layout)
    values = learner.forward(sequences)
    assert values[0].item() == pytest.approx(plain(llama, sequences[0]).item(), rel=1e-5)
    assert values[1].item() == 0
    assert learner.forward(sequences[1:]).tolist() == [0]
    alone = TokenSequence((9,), 1)  # neither input nor prediction
    values, gradients = with_gradients(llama, learner.forward([*sequences, alone]))
    assert values[2].item() == 0
    assert_equal((values[:1], gradients), one_by_one(llama, sequences[:1]))


def test_only_positions_that_predict_go_through_the_head(llama: Any, sequences: list[TokenSequence]) -> None:
    packed = pack(sequences, "trie")
    rows: list[int] = []
    head = llama.get_output_embeddings()
    with head.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].flatten(0, -2).shape[0])):
        edge_log_probs(llama, packed)
    asked = {s.tokens[:n] for s in sequences for n in range(s.start, len(s.tokens))}
    assert rows == [len(asked)]
    assert len(asked) < packed.nodes
