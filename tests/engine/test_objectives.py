"""What a stage trains to, against plain passes one at a time: raw text, and preferences by TRL's own DPO."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from forgetmenot.engine.learner import Learner
from forgetmenot.engine.objectives import batch_loss, with_reference
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.engine.training import fit
from forgetmenot.errors import UserError
from forgetmenot.methods import Method
from forgetmenot.prompting.encoded import Encoded, TokenSequence


def _text(number: int, tokens: tuple[int, ...]) -> Encoded:
    return Encoded(f"text-{number}", (), TokenSequence((0, *tokens, 1), 1), (), None, 0)


def _pair(
    number: int, prompt: tuple[int, ...], chosen: tuple[int, ...], rejected: tuple[int, ...]
) -> Encoded:
    candidates = tuple(TokenSequence((*prompt, *answer, 1), len(prompt)) for answer in (chosen, rejected))
    return Encoded(f"pair-{number}", candidates, candidates[0], prompt, None, 0)


@pytest.fixture(scope="module")
def pairs() -> list[Encoded]:
    """Pairs of answers of unlike lengths, some of which begin alike, behind prompts that begin alike."""
    rng = np.random.default_rng(2)

    def drawn(least: int, most: int) -> tuple[int, ...]:
        return tuple(rng.integers(3, 97, rng.integers(least, most)).tolist())

    made = []
    for k in range(7):
        begin = drawn(0, 3)
        made.append(_pair(k, (5, 6, 7, *drawn(1, 6)), begin + drawn(1, 6), begin + drawn(1, 6)))
    return made


def _moved(model: Any) -> None:
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.03 * torch.randn(p.shape, generator=generator)


def _gradient(learner: Learner, batch: Sequence[Encoded]) -> tuple[float, Tensor]:
    learner.model.zero_grad()
    total = 0.0
    for indices in learner.cut([example.answer for example in batch]):
        loss = batch_loss(learner, [batch[k] for k in indices])
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in learner.model.parameters()])


def test_raw_text_is_learned_as_by_plain_passes(llama: LlamaForCausalLM) -> None:
    """Beginnings are shared in the trie; the oracle is Transformers' own loss, one text at a time."""
    rng = np.random.default_rng(3)
    head = tuple(rng.integers(3, 97, 9).tolist())
    tails = [tuple(rng.integers(3, 97, rng.integers(1, 12)).tolist()) for _ in range(9)]
    texts = [_text(k, head[: 3 + k % 7] + tail) for k, tail in enumerate(tails)]
    learner = Learner(llama, None, budget=32)
    assert len(learner.cut([text.answer for text in texts])) > 1
    found, gradient = _gradient(learner, texts)

    llama.zero_grad()
    total = 0.0
    for text in texts:
        tokens = torch.tensor([text.answer.tokens])
        loss = llama(input_ids=tokens, labels=tokens).loss * (tokens.shape[1] - 1)
        loss.backward()
        total += loss.item()
    wanted = torch.cat([p.grad.flatten() for p in llama.parameters() if p.grad is not None])
    assert found == pytest.approx(total, rel=1e-5)
    assert (gradient - wanted).norm() < 1e-4 * wanted.norm()
    assert learner.counts["computed"] < learner.counts["without_sharing"]


def test_preferences_are_those_of_trl(
    llama: LlamaForCausalLM, pairs: list[Encoded], tiny_tokenizer: Any, tmp_path: Path
) -> None:
    """The loss and its gradient, with the reference model two steps behind; by TRL's trainer and collator."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    reference = LlamaForCausalLM(llama.config)
    reference.load_state_dict(llama.state_dict())
    learner = Learner(llama, None, budget=48, dpo_beta=0.3)
    known = with_reference(learner, pairs)
    _moved(llama)
    found, gradient = _gradient(learner, known)

    words = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}] * 2)
    config = trl.DPOConfig(
        output_dir=str(tmp_path),
        beta=0.3,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    trainer = trl.DPOTrainer(
        model=llama,
        ref_model=reference,
        args=config,
        train_dataset=words,
        processing_class=tiny_tokenizer,
    )
    rows = [
        {
            "prompt_ids": list(one.prompt),
            "chosen_ids": list(one.candidates[0].tokens[one.answer.start :]),
            "rejected_ids": list(one.candidates[1].tokens[one.answer.start :]),
        }
        for one in pairs
    ]
    llama.zero_grad()
    loss = trainer.compute_loss(llama, DataCollatorForPreference(pad_token_id=0)(rows))
    loss.backward()
    wanted = torch.cat([p.grad.flatten() for p in llama.parameters() if p.grad is not None])
    assert found / len(pairs) == pytest.approx(loss.item(), rel=1e-5)
    assert (gradient / len(pairs) - wanted).norm() < 1e-4 * wanted.norm()


def test_the_prompt_of_a_pair_is_computed_once(llama: LlamaForCausalLM, pairs: list[Encoded]) -> None:
    learner = Learner(llama, None, budget=512)
    batch_loss(learner, with_reference(learner, pairs[:1]))
    one, other = (candidate.tokens[:-1] for candidate in pairs[0].candidates)
    distinct = {tokens[:k] for tokens in (one, other) for k in range(1, len(tokens) + 1)}
    assert learner.counts["computed"] == 2 * len(distinct)  # once for the reference, once for the loss


def test_a_stage_of_preferences_begins_at_log_two_and_prefers_what_was_chosen(
    llama: LlamaForCausalLM, pairs: list[Encoded]
) -> None:
    """At the start π is π_ref, so the loss is −log σ(0); the mean is over pairs, not over tokens."""
    from accelerate import Accelerator

    learner, steps = Learner(llama.requires_grad_(True), None, budget=48), list[Any]()
    settings = TrainingSettings(batch_size=7, schedule="constant", warmup_ratio=0)

    def margins() -> Any:
        scores = learner.log_likelihoods([c for one in pairs for c in one.candidates]).view(-1, 2)
        return scores[:, 0] - scores[:, 1]

    before = margins()
    fit(
        learner,
        pairs,
        Method(),
        settings,
        accelerator=Accelerator(cpu=True),
        epochs=5,
        learning_rate=1e-3,
        seed=0,
        on_step=steps.append,
    )
    assert steps[0].loss == pytest.approx(np.log(2), abs=1e-5)
    assert steps[-1].loss < 0.6
    assert (margins() > before).all()


def test_preferences_and_answers_have_no_common_mean(learner: Learner, pairs: list[Encoded]) -> None:
    with pytest.raises(UserError, match="no common unit"):
        with_reference(learner, [pairs[0], _text(0, (4, 5))])
