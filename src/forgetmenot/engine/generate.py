"""Generated answers: greedy, in batches of like length."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch

from forgetmenot.engine import ranks, shards

BATCH = 16


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[tuple[int, ...]],
    max_new_tokens: int,
    advance: Callable[[int], None] | None = None,
) -> list[str]:
    """The text that the model writes after each prompt, greedily, up to EOS or `max_new_tokens`.

    It ends as well where the model has no further position. Prompts are batched by length and padded on the
    left; padding is masked and has no position. The batches are dealt to the processes; of a sharded model
    every process writes all of them, since its processes must make the same number of forward passes.
    """
    device = next(model.parameters()).device
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or float("inf")
    answers: dict[int, str] = {}
    room = [min(max_new_tokens, positions - len(prompt)) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda k: (len(prompts[k]), prompts[k]))
    batches = list(_batches(order, room))
    for number, dealt in _own(batches, everything=shards.is_sharded(model)):
        batch = batches[number]
        width = max(len(prompts[k]) for k in batch)
        tokens = torch.full((len(batch), width), pad, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, k in enumerate(batch):
            tokens[row, width - len(prompts[k]) :] = torch.tensor(prompts[k])
            mask[row, width - len(prompts[k]) :] = 1
        written = model.generate(
            input_ids=tokens.to(device),
            attention_mask=mask.to(device),
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,  # some checkpoints bring their own, which greedy search obeys too
            no_repeat_ngram_size=0,
            max_new_tokens=room[batch[0]],
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=pad,
        )
        for row, k in enumerate(batch):
            answers[k] = tokenizer.decode(written[row, width:], skip_special_tokens=True)
        if advance is not None:
            advance(sum(len(batches[k]) for k in dealt))
    answers = ranks.gathered(answers)
    return [answers[k] for k in range(len(prompts))]


def _own(batches: Sequence[Sequence[int]], *, everything: bool) -> Iterator[tuple[int, Sequence[int]]]:
    """The batches that this process writes, each with those that all processes write meanwhile."""
    if everything:
        return ((k, (k,)) for k in range(len(batches)))
    return ((turn.pack, turn.dealt) for turn in ranks.turns([len(batch) for batch in batches]))


def _batches(order: Sequence[int], room: Sequence[float]) -> Iterator[list[int]]:
    """Batches of prompts that have the same room, so that none ends sooner for its neighbours' sake."""
    for _, alike in groupby(order, key=room.__getitem__):
        group = list(alike)
        for begin in range(0, len(group), BATCH):
            yield group[begin : begin + BATCH]
