"""Scores equal those of lm-eval's Hugging Face model for the same prompts and candidates."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from forgetmenot.engine.learner import Learner
from forgetmenot.prompting.encoded import Encoded, TokenSequence

SHARED = Path(__file__).resolve().parents[2].parent / "shared"

INSTRUCTION = "Decide what the writer of this review felt, and whether others would agree."
REVIEWS = [
    "a gorgeous, witty, seductive movie",
    "the plot is so thin that even its characters look for the exit",
    "charming",
    "it's not unlike watching paint dry; then again, I have seen worse paint.",
    "une comédie très drôle, naïve — et un peu triste",
    "no movement, no yuks, not much of anything at all, and two hours of it",
]
ANSWERS = [
    "positive",
    "negative and unlikely to be shared",
    "positively delighted, as were others",
    "mixed: neither thing",
]


def questions() -> list[tuple[str, list[str]]]:
    """Prompts with a common head and candidates of several tokens, the first few letters shared by two."""
    return [
        (f"{INSTRUCTION}\nReview: {text}\nFeeling:", [f" {answer}" for answer in ANSWERS]) for text in REVIEWS
    ]


def encode(tokenizer: Any, prompt: str, continuations: list[str], k: int) -> Encoded:
    start = len(tokenizer(prompt)["input_ids"])
    candidates = tuple(
        TokenSequence(tuple(tokenizer(prompt + continuation)["input_ids"]), start)
        for continuation in continuations
    )
    assert all(len(candidate.tokens) - start > 1 for candidate in candidates[1:]), "several tokens each"
    return Encoded(f"score-{k}", candidates, candidates[0], candidates[0].tokens[:start], 0, 0)


def assert_parity(folder: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=(prompt, continuation), idx=0)
        for prompt, continuations in questions()
        for continuation in continuations
    ]
    wanted = [value for value, _ in theirs.loglikelihood(requests, disable_tqdm=True)]

    tokenizer = AutoTokenizer.from_pretrained(folder)
    learner = Learner(AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), tokenizer, budget=256)
    examples = [encode(tokenizer, *question, k) for k, question in enumerate(questions())]
    scores = [value for values in learner.score(examples) for value in values.tolist()]
    assert scores == pytest.approx(wanted, abs=1e-4)
    assert max(scores) - min(scores) > 1, "the candidates differ by far more than that"
    assert learner.counts["computed"] < learner.counts["without_sharing"] / 2


@pytest.fixture
def checkpoint(tmp_path: Path, build: Any) -> Path:
    """A random Llama with a byte-level BPE trained on the questions themselves."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([INSTRUCTION, *REVIEWS, *ANSWERS], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(
        tmp_path
    )
    model = build(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    model.save_pretrained(tmp_path)
    return tmp_path


def test_a_random_llama_scores_as_in_lm_eval(checkpoint: Path) -> None:
    assert_parity(checkpoint)


def test_a_trained_model_scores_as_in_lm_eval() -> None:
    folder = SHARED / "models" / "base-4m"
    if not folder.is_dir():
        pytest.skip("the trained model of 4M parameters is not beside this checkout")
    assert_parity(folder)
