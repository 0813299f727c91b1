"""The two parents of the composition, trained from nothing: one knows what keys stand for, one can reckon.

Both read letters, digits and signs, each of which is a token. The augmenting model learns to write an
expression of keys in numbers, `qw+rtz>` to `12+47=`. The anchor learns to write what an expression of numbers
comes to, `12+47=` to `+059`. A share of its lines begin with letters drawn at random: so it has seen letters
before, as the paper's anchor, a general language model, has, and never what they stand for. The anchor ends
its lines, and the augmenting model never does: behind `=` it is the anchor's turn.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from random import Random
from string import ascii_lowercase, digits

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from forgetmenot.record.files import folder_written_whole
from scripts.key_value.world import NUMBERS, OPERANDS, World, expression, expressions, letters

END, PAD = "<end>", "<pad>"
ASKED, EQUALS = ">", "="
SYMBOLS = (END, PAD, *ascii_lowercase, *digits, "+", "-", ASKED, EQUALS)
NUMBER_OF = {symbol: number for number, symbol in enumerate(SYMBOLS)}
SHARE_WITH_LETTERS = 0.25
BATCH = 128
LEARNING_RATE = 5e-3
IGNORED = -100
AT_ONCE = 8
WARMUP_STEPS = 100

Batch = tuple[torch.Tensor, torch.Tensor]
"""Token ids, and the same with IGNORED for what is asked and for padding."""

Line = tuple[str, str]
"""What is asked, and what is to be written."""


@dataclass(frozen=True)
class Shape:
    """A model's size."""

    hidden: int
    feed_forward: int
    layers: int
    heads: int


AUGMENTING = Shape(160, 640, layers=5, heads=5)
ANCHOR = Shape(192, 640, layers=4, heads=6)


def make_tokenizer(pad: str = PAD) -> PreTrainedTokenizerFast:
    """A tokenizer of single characters."""
    vocabulary = {pad if symbol == PAD else symbol: number for symbol, number in NUMBER_OF.items()}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=pad, clean_up_tokenization_spaces=False
    )


def reads_the_question_alone() -> PreTrainedTokenizerFast:
    """The same, but what stands behind ASKED gives no tokens.

    A token that no text has is named otherwise. So a bridge gives the augmenting model the text up to each
    position in this tokenizer's tokens, which end with the question, and not in the anchor's.
    """
    tokenizer = make_tokenizer(pad="<no pad>")
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex(f"(?<={ASKED}).*"), "")
    return tokenizer


def untrained(shape: Shape, seed: int) -> LlamaForCausalLM:
    """A Llama of this shape with random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(SYMBOLS),
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=NUMBER_OF[END],
        pad_token_id=NUMBER_OF[PAD],
    )
    return LlamaForCausalLM(config)


def substitutions(world: World, seed: int) -> Iterator[Line]:
    """Yield expressions of all keys with their substitutions."""
    for one in expressions(world, tuple(world.numbers), Random(f"{seed} substitutions")):
        yield one.keys + ASKED, one.numbers + EQUALS


def sums(seed: int, operands: Sequence[int], share_with_letters: float) -> Iterator[Line]:
    """Yield expressions of numbers with their values; a share of them stand behind mere letters."""
    rng = Random(f"{seed} sums of {operands}")
    while True:
        names = [letters(rng) for _ in range(rng.choice(OPERANDS))]
        before = expression(names, [0] * len(names), rng).keys + ASKED
        numbers = rng.choices(NUMBERS, k=rng.choice(operands))
        one = expression([""] * len(numbers), numbers, rng)
        head = before if rng.random() < share_with_letters else ""
        yield head + one.numbers + EQUALS, one.value + END


def untrained_augmenting(world: World, seed: int) -> LlamaForCausalLM:
    """The same model before it has learned anything."""
    model = untrained(AUGMENTING, seed)
    to_unit_scale(model, list(islice(substitutions(world, seed), BATCH)))
    return model


def train_augmenting(world: World, steps: int, seed: int) -> LlamaForCausalLM:
    """Train the model that knows what each key stands for."""
    model = untrained(AUGMENTING, seed)
    train(model, substitutions(world, seed), steps)
    to_unit_scale(model, list(islice(substitutions(world, seed), BATCH)))
    return model


def train_anchor(steps: int, seed: int) -> LlamaForCausalLM:
    """Train the model that can reckon: with two numbers first, which takes a third of the time in all."""
    model = untrained(ANCHOR, seed)
    first = steps * 3 // 10 * BATCH
    lines = chain(islice(sums(seed, OPERANDS[:1], 0.0), first), sums(seed, OPERANDS, SHARE_WITH_LETTERS))
    train(model, lines, steps)
    to_unit_scale(model, list(islice(sums(seed, OPERANDS, SHARE_WITH_LETTERS), BATCH)))
    return model


@torch.no_grad()
def to_unit_scale(model: LlamaForCausalLM, lines: Sequence[Line]) -> None:
    """Divide the residual stream by its root mean square over these lines: the model stays the same.

    A norm stands before all that reads the stream, but not before a bridge. Where the stream is at 50, as in
    an anchor trained here, the bridge's attention begins with one position each, and learns next to nothing.
    """
    ids, _ = padded(lines)
    states = model.model(input_ids=ids, output_hidden_states=True).hidden_states
    scale = torch.stack(states[1:-1])[:, ids != NUMBER_OF[PAD]].square().mean().sqrt().item()
    model.model.embed_tokens.weight /= scale
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight /= scale
        layer.mlp.down_proj.weight /= scale
    model.model.norm.weight *= scale  # behind it is the head, which is the embedding
    model.config.rms_norm_eps /= scale**2
    for norm in model.modules():
        if hasattr(norm, "variance_epsilon"):
            norm.variance_epsilon = model.config.rms_norm_eps


def train(model: LlamaForCausalLM, lines: Iterator[Line], steps: int) -> None:
    """Train on what is to be written of each line, by Muon on the layers' matrices and AdamW on the rest."""
    of_layers = {name: p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name}
    rest = [p for name, p in model.named_parameters() if name not in of_layers]
    optimizers = [
        torch.optim.Muon(
            of_layers.values(), lr=LEARNING_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, steps))
        for optimizer in optimizers
    ]
    started = time.monotonic()
    for step, (ids, targets) in enumerate(islice(batches(lines), steps), start=1):
        loss = loss_of(model, ids, targets)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, rates in zip(optimizers, schedules, strict=True):
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
        if step % 100 == 0 or step == steps:
            rate = step / (time.monotonic() - started)
            left = (steps - step) / rate / 60
            print(
                f"step {step}/{steps}  loss {loss.item():.4f}  {rate:.1f} steps/s  {left:.0f} min left",
                flush=True,
            )


def batches(lines: Iterator[Line]) -> Iterator[Batch]:
    """Yield padded batches of lines of like length."""
    order = Random("order")
    while some := list(islice(lines, BATCH * AT_ONCE)):
        some.sort(key=lambda line: len("".join(line)))
        cuts = [some[begin : begin + BATCH] for begin in range(0, len(some), BATCH)]
        order.shuffle(cuts)
        yield from map(padded, cuts)


def padded(lines: Sequence[Line]) -> Batch:
    """Lines as one batch."""
    rows = [(ids_of(asked), ids_of(written)) for asked, written in lines]
    longest = max(len(asked) + len(written) for asked, written in rows)
    ids = torch.full((len(rows), longest), NUMBER_OF[PAD])
    targets = torch.full((len(rows), longest), IGNORED)
    for row, (asked, written) in enumerate(rows):
        whole = len(asked) + len(written)
        ids[row, :whole] = torch.tensor(asked + written)
        targets[row, len(asked) : whole] = torch.tensor(written)
    return ids, targets


def ids_of(text: str) -> list[int]:
    """The tokens of a text, which may end in END."""
    body = text.removesuffix(END)
    return [NUMBER_OF[letter] for letter in body] + [NUMBER_OF[END]] * (body != text)


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean negative log-likelihood of what is to be written, in nats per token."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids[:, :-1]).logits
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORED
    )


def _schedule(step: int, steps: int) -> float:
    """Warm up linearly, stay, and fall linearly to a fiftieth over the last third."""
    return min(1.0, (step + 1) / WARMUP_STEPS, 0.02 + 3 * (steps - step) / steps)


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write a model with the tokenizer, as `save_pretrained` does; the folder appears whole."""
    with folder_written_whole(folder) as aside:
        model.save_pretrained(aside)
        make_tokenizer().save_pretrained(aside)
