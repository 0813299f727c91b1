"""Tokenizers of the kinds that models bring, made here and small."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

SHARED = Path(__file__).resolve().parents[2].parent / "shared"

TEXTS = [
    "Review: a gripping , funny and touching film\nSentiment: positive",
    "Review: the plot is dull and the acting is worse\nSentiment: negative",
    "Premise: two men walk in the park\nHypothesis: nobody walks\nThe answer is no, yes, maybe",
    "f <| x <| y |> z |> w, and <| once more |>",
    "Ein Satz mit Umlauten: schöne Grüße, 你好, привет, naïve café",
]
ROLES = ["<|system|>", "<|user|>", "<|assistant|>", "<|eot|>"]
# It writes BOS itself, trims contents, and tells the date.
CHAT = (
    "{{ bos_token }}{% for turn in messages %}<|{{ turn.role }}|>"
    "{% if loop.first %}Today is {{ strftime_now('%d %B %Y') }}. {% endif %}"
    "{{ turn.content | trim }}<|eot|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _byte_level(vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _metaspace(unigram: bool, prepend: str) -> Tokenizer:
    """Like Llama 2's: blanks are letters, unknown letters are bytes, special tokens are in the vocabulary."""
    draft = Tokenizer(models.Unigram() if unigram else models.BPE())
    draft.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    trainer: Any = trainers.UnigramTrainer if unigram else trainers.BpeTrainer
    draft.train_from_iterator(TEXTS, trainer(vocab_size=200, show_progress=False))
    learned = json.loads(draft.to_str())["model"]
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    if unigram:
        pieces = [(piece, 0.0) for piece in first] + [tuple(piece) for piece in learned["vocab"]]
        tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    else:
        vocab = {piece: i for i, piece in enumerate([*first, *learned["vocab"]])}
        merges = [tuple(pair) for pair in learned["merges"]]
        tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=unigram)
    strip = [decoders.Strip(" ", 1, 0)] if prepend != "never" else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _wrapped(tokenizer: Tokenizer, bos: str, eos: str, *, adds_bos: bool) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens(
        [AddedToken(one, normalized=False) for one in dict.fromkeys([bos, eos, *ROLES])]
    )
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, chat_template=CHAT, model_max_length=10**6
    )


END = "<|endoftext|>"
MAKERS: dict[str, Callable[[], Any]] = {
    "gpt2-like": lambda: _wrapped(_byte_level(500), END, END, adds_bos=False),
    "llama3-like": lambda: _wrapped(_byte_level(500), "<|begin|>", END, adds_bos=True),
    "bytes": lambda: _wrapped(_byte_level(256), "<s>", "</s>", adds_bos=True),
    "llama2-like": lambda: _wrapped(_metaspace(False, "first"), "<s>", "</s>", adds_bos=True),
    "metaspace-always": lambda: _wrapped(_metaspace(False, "always"), "<s>", "</s>", adds_bos=False),
    "unigram": lambda: _wrapped(_metaspace(True, "first"), "<s>", "</s>", adds_bos=True),
    "byt5": lambda: ByT5Tokenizer(chat_template=CHAT.replace("bos_token", "''")),
    "base-4m": lambda: AutoTokenizer.from_pretrained(SHARED / "models" / "base-4m", chat_template=CHAT),
}


@cache
def made(name: str) -> Any:
    return MAKERS[name]()


@pytest.fixture(scope="session", params=list(MAKERS))
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """Each kind of tokenizer in turn."""
    if request.param == "base-4m" and not (SHARED / "models" / "base-4m").is_dir():
        pytest.skip("the model base-4m is not on this machine")
    return made(request.param)


@pytest.fixture(scope="session")
def tokenizer_named() -> Callable[[str], Any]:
    """One kind of tokenizer by its name."""
    return made
