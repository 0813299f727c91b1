"""Pre-train a bundled model from nothing: `python -m scripts.quickstart.pretrain base` (or `small`).

The text is made on the way from a seed (see corpus.py), so nothing is downloaded. With the same seed, thread
count and library versions the weights come out the same.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scripts.quickstart.build_suite import FOLDER as SUITE
from scripts.quickstart.corpus import VERDICTS, documents

FOLDER = Path(__file__).resolve().parents[2] / "src" / "forgetmenot" / "models" / "quickstart"
VOCABULARY = 2048
TOKENIZER_DOCUMENTS = 20_000
HELD_OUT_DOCUMENTS = 2_000
BATCH_TOKENS = 2048
WARMUP_STEPS = 100
END, PAD = "<|endoftext|>", "<|pad|>"
CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


@dataclass(frozen=True)
class Phase:
    """Some steps of training with a schedule of their own, on text not seen before."""

    steps: int
    learning_rate: float
    verdict_weight: float = 1.0


@dataclass(frozen=True)
class Size:
    """A model's shape and the phases of its training."""

    hidden: int
    feed_forward: int
    layers: int
    heads: int
    phases: tuple[Phase, ...]


# First to speak, then to judge: in the second phase the few words that say who was right or how it ended
# count more than the names and things around them, which are left to chance and teach nothing by the end.
SIZES = {
    "small": Size(
        96,
        192,
        layers=4,
        heads=3,
        phases=(Phase(1200, 4e-3, verdict_weight=2), Phase(2000, 3e-3, verdict_weight=8)),
    ),
    "base": Size(
        192,
        512,
        layers=4,
        heads=6,
        phases=(Phase(2000, 3e-3, verdict_weight=2), Phase(2600, 2e-3, verdict_weight=8)),
    ),
}


def train_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer that puts the end-of-text token in front, as each document has it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT
    return fast


def untrained(size: Size) -> LlamaForCausalLM:
    """Return a Llama of this size with random weights."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.hidden,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    return LlamaForCausalLM(config)


def batches(tokenizer: PreTrainedTokenizerFast, texts: Iterator[str], seed: int) -> Iterator[torch.Tensor]:
    """Yield padded batches of documents of like length, each between two end-of-text tokens."""
    rng = Random(seed)
    while chunk := list(islice(texts, 8192)):
        rows = sorted(([*ids, 0] for ids in tokenizer(chunk)["input_ids"]), key=len)
        cuts: list[list[list[int]]] = [[]]
        for row in rows:
            if (len(cuts[-1]) + 1) * len(row) > BATCH_TOKENS:
                cuts.append([])
            cuts[-1].append(row)
        rng.shuffle(cuts)
        for cut in cuts:
            longest = len(cut[-1])
            yield torch.tensor([row + [1] * (longest - len(row)) for row in cut])


def loss_of(
    model: LlamaForCausalLM, batch: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean negative log-likelihood in nats, padding left out, each token with its weight."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=batch[:, :-1]).logits
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), batch[:, 1:].flatten(), weights, ignore_index=1
    )


def pretrain(size: Size, tokenizer: PreTrainedTokenizerFast, seed: int) -> tuple[LlamaForCausalLM, int]:
    """Return the trained model, its weights rounded to bfloat16, and how many tokens it saw."""
    torch.manual_seed(seed)
    model, tokens = untrained(size), 0
    for number, phase in enumerate(size.phases):
        tokens += train(model, phase, tokenizer, seed + 1000 * number)
        model.to(torch.bfloat16).float()
    return model, tokens


def train(model: LlamaForCausalLM, phase: Phase, tokenizer: PreTrainedTokenizerFast, seed: int) -> int:
    """Train the model for one phase; return how many tokens it saw."""
    weights = torch.ones(VOCABULARY)
    weights[[tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in VERDICTS]] = (
        phase.verdict_weight
    )
    matrices = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=phase.learning_rate, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, phase.steps))
    tokens, started = 0, time.monotonic()
    texts = documents(seed, score_files())
    for step, batch in enumerate(islice(batches(tokenizer, texts, seed), phase.steps), start=1):
        loss = loss_of(model, batch, weights)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        tokens += int((batch[:, 1:] != 1).sum())
        if step % 100 == 0 or step == phase.steps:
            rate = tokens / (time.monotonic() - started)
            print(f"step {step}/{phase.steps}  loss {loss.item():.3f}  {rate:.0f} tokens/s", flush=True)
    return tokens


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int) -> float:
    """Return the loss in nats per token on documents of another seed."""
    total, count = 0.0, 0
    texts = islice(documents(seed + 1, score_files()), HELD_OUT_DOCUMENTS)
    for batch in batches(tokenizer, texts, seed):
        n = int((batch[:, 1:] != 1).sum())
        total, count = total + n * loss_of(model, batch).item(), count + n
    return total / count


def score_files() -> list[Path]:
    """Return the suite's score splits, whose sentences the text must not hold."""
    return sorted(SUITE.glob("*-score.jsonl"))


def _schedule(step: int, steps: int) -> float:
    """Warm up linearly, then fall to zero along a cosine."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)))


def main() -> None:
    """Train a tokenizer and a model, and write both with a card that says how they came about."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="fewer steps in each phase, for a trial")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="default: the bundled model's folder")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size = SIZES[given.size]
    if given.steps:
        size = replace(size, phases=tuple(replace(phase, steps=given.steps) for phase in size.phases))
    folder: Path = given.output or FOLDER / given.size

    # Both sizes share one tokenizer: its text does not depend on the seed of the weights.
    tokenizer = train_tokenizer(islice(documents(0, score_files()), TOKENIZER_DOCUMENTS))
    model, tokens = pretrain(size, tokenizer, given.seed)
    loss = held_out_loss(model, tokenizer, given.seed)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(_card(given.size, size, model, tokens, loss, given), encoding="utf-8")
    print(f"held-out loss {loss:.4f} nats per token; written to {folder}")


def _card(
    name: str, size: Size, model: LlamaForCausalLM, tokens: int, loss: float, given: argparse.Namespace
) -> str:
    parameters = sum(p.numel() for p in model.parameters())
    steps = f" --steps {given.steps}" if given.steps else ""
    return f"""# quickstart-{name}

A Llama of {parameters:,} parameters ({size.layers} layers of width {size.hidden}, tied embeddings, byte-level
BPE of {VOCABULARY:,}), pre-trained from random weights on text that `scripts/quickstart/corpus.py` makes; no
other data. It knows a small made-up world and is for demonstrations and tests, not for use.

- Made by: `python -m scripts.quickstart.pretrain {name} --seed {given.seed}{steps} --threads {given.threads}`
- Trained on {tokens:,} tokens, each seen once, in {sum(phase.steps for phase in size.phases):,} steps of two
  phases (AdamW, cosine, bfloat16 autocast over fp32 weights; see `SIZES` in `scripts/quickstart/pretrain.py`)
- Loss on held-out text of the same kind: {loss:.4f} nats per token, after rounding to bfloat16
- With torch {torch.__version__}, transformers {transformers.__version__}
- Licence: that of the project
"""


if __name__ == "__main__":
    main()
