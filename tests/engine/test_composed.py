"""Composed models: exact against attention written out, one sequence and one position at a time."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from forgetmenot.engine.guard import why_no_prefix, why_one_by_one
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import Layout
from forgetmenot.engine.precision import Precision
from forgetmenot.engine.trie import build_trie
from forgetmenot.models.composition import (
    Bridge,
    Connection,
    Seen,
    added_parameters,
    compose,
    composition,
    connected_layers,
    decompose,
)
from forgetmenot.models.layers import decoder_layers
from forgetmenot.prompting.encoded import Encoded, TokenSequence

V = 97
Build = Callable[[Any], Any]


def like_llama(width: int, layers: int, vocabulary: int = V) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


PAIRS: dict[str, Callable[[], tuple[Any, Any]]] = {  # anchor, augmenting model
    "llama, llama": lambda: (LlamaConfig(**like_llama(32, 5)), LlamaConfig(**like_llama(16, 3))),
    "gpt2, qwen2": lambda: (
        GPT2Config(vocab_size=V, n_embd=24, n_layer=4, n_head=4, n_positions=128),
        Qwen2Config(**like_llama(40, 2)),
    ),
    "gemma3 with a window, llama": lambda: (
        Gemma3TextConfig(**like_llama(32, 4), head_dim=8, sliding_window=5),
        LlamaConfig(**like_llama(16, 2)),
    ),
    "llama, gemma2 with a window": lambda: (
        LlamaConfig(**like_llama(32, 3)),
        Gemma2Config(**like_llama(16, 4), head_dim=8, sliding_window=5),
    ),
}


def composed_of(build: Build, anchor: Any, augmenting: Any, connections: int = 2, heads: int = 4) -> Any:
    """The anchor with a bridge, all of whose weights are drawn."""
    model = build(anchor).requires_grad_(False)
    bridge = Bridge(build(augmenting), model, connections, heads)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in bridge.connections.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    compose(model).add(bridge)
    return model.eval()


def bridge_in(model: Any) -> Bridge:
    found = composition(model)
    assert found is not None
    assert found.bridge is not None
    return found.bridge


def the_same(tokens: tuple[int, ...]) -> tuple[int, ...]:
    return tokens


def reference_logits(
    model: Any, tokens: tuple[int, ...], translate: Callable[[tuple[int, ...]], tuple[int, ...]] = the_same
) -> Tensor:
    """Logits of one sequence: for each position the augmenting model runs on the text up to there alone."""
    bridge, composed = bridge_in(model), composition(model)
    assert composed is not None
    prefixes = [translate(tokens[: i + 1]) for i in range(len(tokens))]
    given = [augmenting_states(bridge, prefix) if prefix else None for prefix in prefixes]

    def cross(number: int) -> Any:
        connection = bridge.connections[number]
        assert isinstance(connection, Connection)

        def hook(_: Any, __: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            found = torch.stack(
                [
                    hidden[0, i]
                    if states is None
                    else hidden[0, i] + crossed(connection, hidden[0, i], states[number])
                    for i, states in enumerate(given)
                ]
            )[None]
            return (found, *output[1:]) if isinstance(output, tuple) else found

        return hook

    layers = decoder_layers(model)
    hooks = [layers[j].register_forward_hook(cross(k)) for k, j in enumerate(bridge.written)]
    try:
        with composed.using(None):
            logits: Tensor = model(input_ids=torch.tensor([tokens])).logits[0]
    finally:
        for hook in hooks:
            hook.remove()
    return logits


def augmenting_states(bridge: Bridge, tokens: tuple[int, ...]) -> list[Tensor]:
    """What each connected layer of the augmenting model gives for one sequence [tokens, width]."""
    found: list[Tensor] = []

    def see(_: Any, __: Any, output: Any) -> None:
        found.append(output[0][0] if isinstance(output, tuple) else output[0])

    layers = decoder_layers(bridge.augmenting)
    hooks = [layers[k].register_forward_hook(see) for k in bridge.read]
    with torch.no_grad():
        bridge.augmenting(input_ids=torch.tensor([tokens]))
    for hook in hooks:
        hook.remove()
    return found


def crossed(connection: Connection, hidden: Tensor, states: Tensor) -> Tensor:
    """f_cross for one position [width], head by head, as the paper has it."""
    projected = states @ connection.projection.weight.T + connection.projection.bias
    query = connection.query.weight @ hidden + connection.query.bias
    key = projected @ connection.key.weight.T + connection.key.bias
    value = projected @ connection.value.weight.T + connection.value.bias
    size = len(query) // connection.heads
    parts = []
    for head in range(connection.heads):
        part = slice(head * size, (head + 1) * size)
        scores = key[:, part] @ query[part] / math.sqrt(size)
        parts.append(scores.softmax(0) @ value[:, part])
    return connection.output.weight @ torch.cat(parts) + connection.output.bias


def reference(model: Any, sequence: TokenSequence, translate: Any = the_same) -> Tensor:
    log_probs = reference_logits(model, sequence.tokens, translate).log_softmax(-1)
    positions = torch.arange(sequence.start, len(sequence.tokens))
    found: Tensor = log_probs[positions - 1, torch.tensor(sequence.tokens)[positions]].sum()
    return found


@pytest.mark.parametrize("layout", ["trie", "blocks", "padded", "single"])
@pytest.mark.parametrize("pair", PAIRS)
def test_log_likelihoods_and_gradients_are_those_written_out(
    build: Build, sequences: list[TokenSequence], pair: str, layout: Layout
) -> None:
    model = composed_of(build, *PAIRS[pair]())
    learner = Learner(model, None, budget=48, layout=layout, training_layout=layout)
    truth = torch.stack([reference(model, one) for one in sequences])
    assert learner.log_likelihoods(sequences).tolist() == pytest.approx(truth.tolist(), rel=1e-4, abs=1e-4)

    names, values = zip(*learner.trainable().items(), strict=True)
    assert all(".connections." in name for name in names)
    weights = torch.linspace(0.5, 1.5, len(sequences))
    wanted = torch.autograd.grad((truth * weights).sum(), values)
    for indices in learner.cut(sequences):
        found = learner.forward([sequences[k] for k in indices])
        (found * weights[indices]).sum().backward()  # type: ignore[no-untyped-call]
    rounding = 1e-5 * max(float(true.abs().max()) for true in wanted)  # a key's bias changes nothing: 0
    for name, true in zip(names, wanted, strict=True):
        torch.testing.assert_close(learner.gathered()[name], true, rtol=1e-3, atol=rounding)


@pytest.mark.parametrize("layout", ["trie", "padded"])
def test_in_bf16_it_differs_by_rounding_alone(
    build: Build, sequences: list[TokenSequence], layout: Layout
) -> None:
    model = composed_of(build, *PAIRS["llama, llama"]())
    precision: Precision = "bf16"
    learner = Learner(model, None, budget=48, layout=layout, training_layout=layout, precision=precision)
    with torch.no_grad():
        truth = torch.stack([reference(model, one) for one in sequences]).double()
    found = learner.log_likelihoods(sequences)
    assert float(((found - truth).abs() / truth.abs().clamp(min=1)).mean()) < 0.03
    assert found.tolist() != truth.tolist()
    learner.forward(sequences).sum().backward()  # type: ignore[no-untyped-call]
    assert all(
        value.grad is not None and value.grad.isfinite().all() for value in learner.trainable().values()
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_new_bridge_changes_no_bit(
    build: Build, sequences: list[TokenSequence], pair: str, precision: Precision
) -> None:
    anchor, augmenting = PAIRS[pair]()
    model = build(anchor)
    learner = Learner(model, None, budget=64, precision=precision)
    before = learner.log_likelihoods(sequences)
    bridge = Bridge(build(augmenting), model, 2, 4)
    compose(model).add(bridge)
    assert torch.equal(learner.log_likelihoods(sequences), before)
    with torch.no_grad():
        bridge.connections[0].output.bias += 1  # type: ignore[union-attr, operator]
    assert not torch.equal(learner.log_likelihoods(sequences), before)
    decompose(model)
    assert torch.equal(learner.log_likelihoods(sequences), before)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(3, 6), min_size=1, max_size=6), min_size=1, max_size=5))
def test_no_logit_depends_on_a_later_token(build: Build, rows: list[list[int]]) -> None:
    """On any trie the gradient of a position's output is zero but for the states of its own path."""
    torch.manual_seed(0)
    connection = Connection(8, 12, 3)
    nn.init.normal_(connection.output.weight)
    trie = build_trie([tuple(row) for row in rows])
    n = len(trie)
    index = torch.arange(n)
    end = torch.from_numpy(trie.end)
    allowed = (index[None] <= index[:, None]) & (index[:, None] < end[None])
    states = torch.randn(1, n, 8, requires_grad=True)
    output = connection(torch.randn(1, n, 12), Seen((states,), allowed[None, None]), 0)
    paths = {nodes[k]: set(nodes[: k + 1].tolist()) for nodes in trie.nodes for k in range(len(nodes))}
    for node in range(n):
        (gradient,) = torch.autograd.grad(output[0, node].sum(), states, retain_graph=True)
        assert set(torch.nonzero(gradient[0].abs().sum(-1))[:, 0].tolist()) == paths[node]


def test_the_gradient_of_an_earlier_logit_by_a_later_token_is_zero(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through both models, by their input embeddings, in one pass of the engine."""
    model = composed_of(build, *PAIRS["llama, llama"]())
    monkeypatch.setattr(torch, "no_grad", torch.enable_grad)  # the augmenting model's pass wants no gradients
    embedded = []
    for part in (model, bridge_in(model).augmenting):
        layer = part.get_input_embeddings()

        def keep(_: Any, __: Any, output: Tensor) -> Tensor:
            embedded.append(output.detach().requires_grad_())
            return embedded[-1]

        layer.register_forward_hook(keep)
    tokens = (3, 4, 5, 6, 7, 8, 9, 10)
    log_probs = Learner(model, None, budget=64).log_probs([TokenSequence(tokens, 1)])
    assert len(embedded) == 2
    for i, row in enumerate(log_probs):
        for gradient in torch.autograd.grad(row.square().sum(), embedded, retain_graph=True):
            size = gradient[0].abs().sum(-1)
            assert not size[i + 1 :].any()
            assert size[: i + 1].all()


def test_scores_behind_a_common_prefix_are_those_of_whole_sequences(
    build: Build, examples: list[Encoded]
) -> None:
    model = composed_of(build, *PAIRS["llama, llama"]())
    flat = [candidate for example in examples for candidate in example.candidates]
    learner = Learner(model, None, budget=40)
    arranged = learner.arrange(flat)
    assert len(arranged.prefix) >= 6
    truth = [float(reference(model, one)) for one in flat]
    assert learner.log_likelihoods(arranged).tolist() == pytest.approx(truth, rel=1e-4, abs=1e-4)
    assert why_no_prefix(learner, flat) is None


@pytest.mark.parametrize("pair", PAIRS)
def test_answers_with_caches_are_those_of_whole_passes(
    build: Build, examples: list[Encoded], tiny_tokenizer: Any, pair: str
) -> None:
    anchor, augmenting = PAIRS[pair]()
    for config in (anchor, augmenting):
        config.vocab_size = len(tiny_tokenizer)
    model = composed_of(build, anchor, augmenting)
    learner = Learner(model, tiny_tokenizer, budget=64)
    head = tuple(range(30, 50))  # long enough to be computed once
    prompts = [head + example.prompt[: 3 + k] for k, example in enumerate(examples[:5])]
    truth = []
    for prompt in prompts:
        written = list(prompt)
        for _ in range(6):
            written.append(int(reference_logits(model, tuple(written))[-1].argmax()))
        truth.append(tiny_tokenizer.decode(written[len(prompt) :], skip_special_tokens=True))
    assert learner.generate(prompts, 6) == truth
    assert len(set(truth)) > 1
    assert why_one_by_one(learner, [TokenSequence((*prompt, 3), len(prompt)) for prompt in prompts]) is None


def test_parameters_are_those_of_the_papers_formula(build: Build) -> None:
    model = composed_of(build, *PAIRS["llama, llama"]())
    learning = sum(value.numel() for value in bridge_in(model).connections.parameters())
    assert learning == added_parameters(16, 32, 2) == 2 * (16 * 32 + 32 + 4 * 32**2 + 4 * 32)


def test_layers_are_connected_at_even_distances() -> None:
    assert connected_layers(12, 3) == (3, 7, 11)  # every fourth layer
    assert connected_layers(18, 2) == (8, 17)
    assert connected_layers(5, 3) == (0, 2, 4)
    assert connected_layers(3, 3) == (0, 1, 2)


TEXT = "a naïve café: Kätzchen, tabby kitten hounds – 日本, sky sea denim cobalt; rose brick ruby cherry"


@pytest.fixture(scope="module")
def other_tokenizer() -> Any:
    """Byte-level BPE of other merges than the tiny one, which puts BOS in front."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT, "kittens and hounds in the sky"], trainer)
    tokenizer.add_special_tokens(
        [AddedToken("<bos>", normalized=False), AddedToken("<eos>", normalized=False)]
    )
    bos = tokenizer.token_to_id("<bos>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", bos)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")


def apart(build: Build, tiny_tokenizer: Any, other_tokenizer: Any) -> tuple[Any, Any]:
    """A composed model whose tokenizers differ, and the obvious way from one's tokens to the other's."""
    anchor = LlamaConfig(**like_llama(32, 4, len(tiny_tokenizer)))
    augmenting = LlamaConfig(**like_llama(16, 3, len(other_tokenizer)))
    model = composed_of(build, anchor, augmenting)
    bridge_in(model).tokenizers = (tiny_tokenizer, other_tokenizer)

    def translate(tokens: tuple[int, ...]) -> tuple[int, ...]:
        text = tiny_tokenizer.decode(tokens, skip_special_tokens=True)
        while text.endswith("\ufffd"):
            text = text[:-1]
        return tuple(other_tokenizer(text)["input_ids"])

    return model, translate


@pytest.mark.parametrize("layout", ["trie", "padded", "single"])
def test_with_other_tokens_a_position_sees_those_of_the_text_up_to_its_end(
    build: Build, tiny_tokenizer: Any, other_tokenizer: Any, layout: Layout
) -> None:
    model, translate = apart(build, tiny_tokenizer, other_tokenizer)
    end = tiny_tokenizer.eos_token_id
    texts = [TEXT[:40], TEXT[:30] + "kittens", TEXT[20:60], "日本", TEXT[:40] + " hound"]
    sequences = [
        TokenSequence((*([end] * (k % 2)), *tiny_tokenizer(text)["input_ids"], end), 2 + k)
        for k, text in enumerate(texts)
    ]
    learner = Learner(model, tiny_tokenizer, budget=64, layout=layout, training_layout=layout)
    truth = torch.stack([reference(model, one, translate) for one in sequences])
    assert learner.log_likelihoods(sequences).tolist() == pytest.approx(truth.tolist(), rel=1e-4, abs=1e-4)
    names, values = zip(*learner.trainable().items(), strict=True)
    wanted = torch.autograd.grad(truth.sum(), values)
    learner.forward(sequences).sum().backward()  # type: ignore[no-untyped-call]
    rounding = 1e-5 * max(float(true.abs().max()) for true in wanted)
    for name, true in zip(names, wanted, strict=True):
        torch.testing.assert_close(learner.gathered()[name], true, rtol=1e-3, atol=rounding)


def test_where_a_position_sees_nothing_the_anchor_stays_alone(
    build: Build, tiny_tokenizer: Any, other_tokenizer: Any
) -> None:
    """Behind a special token there is no text yet, and without BOS no token of the augmenting model."""
    bare = other_tokenizer.__class__(
        tokenizer_object=Tokenizer.from_str(other_tokenizer.backend_tokenizer.to_str()), eos_token="<eos>"
    )
    bare.backend_tokenizer.post_processor = processors.ByteLevel()
    model, _ = apart(build, tiny_tokenizer, bare)
    composed = composition(model)
    assert composed is not None
    first = TokenSequence((tiny_tokenizer.eos_token_id, 40, 41), 1)
    log_probs = Learner(model, tiny_tokenizer, budget=64).log_probs([first])
    with composed.using(None):
        alone = Learner(model, tiny_tokenizer, budget=64).log_probs([first])
    torch.testing.assert_close(log_probs[0], alone[0])
    assert not torch.allclose(log_probs[1], alone[1], atol=1e-3)


def test_answers_with_other_tokens_are_those_of_whole_passes(
    build: Build, tiny_tokenizer: Any, other_tokenizer: Any
) -> None:
    model, translate = apart(build, tiny_tokenizer, other_tokenizer)
    learner = Learner(model, tiny_tokenizer, budget=64)
    prompts = [
        tuple(tiny_tokenizer(TEXT[:30] + more)["input_ids"]) for more in ("", " kit", "日", "en hound")
    ]
    truth = []
    for prompt in prompts:
        written = list(prompt)
        for _ in range(5):
            written.append(int(reference_logits(model, tuple(written), translate)[-1].argmax()))
        truth.append(tiny_tokenizer.decode(written[len(prompt) :], skip_special_tokens=True))
    assert learner.generate(prompts, 5) == truth

    head = prompts[0]
    tails = [tuple(tiny_tokenizer(word * 6)["input_ids"]) for word in ("ruby ", "sea", "日本", "kit")]
    behind = [TokenSequence(head + tail, len(head) + 1) for tail in tails]
    assert why_no_prefix(learner, behind) is None
    learner = replace(learner, budget=16)
    assert learner.arrange(behind).prefix == head
    scores = [float(reference(model, one, translate)) for one in behind]
    assert learner.log_likelihoods(behind).tolist() == pytest.approx(scores, rel=1e-4)
