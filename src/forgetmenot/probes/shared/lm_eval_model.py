"""A learner with lm-evaluation-harness's model interface: its requests go through the trie."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any

import lm_eval.api.task
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
    resolve_max_length,
)

from forgetmenot.engine.decoding import Decoding
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.prompting.chat_template import write_chat
from forgetmenot.prompting.encoded import TokenSequence

MAX_GEN_TOKS = 256
"""How many tokens lm-eval's Hugging Face model writes where a task does not say."""


class LearnerLM(TemplateLM):  # type: ignore[misc]
    """Answers lm-eval's requests with the learner's current weights.

    Texts become tokens as in lm-eval's `HFLM` (0.4.13), and what is too long is cut on the left as there, so
    that results equal those of `HFLM` to float rounding; but every distinct prefix is computed once: a
    question's candidates share it, and so do all questions with the same few shots. What differs: a
    repetition penalty that a checkpoint's generation config brings is not applied, answers are not drawn, and
    they end with the assistant's turn also where the generation config does not say so.

    Attributes:
        cut: How many requests were too long for the model and lost tokens on their left.
        finite: Whether all that was asked was answered with numbers: no nan, nothing infinite.
    """

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner, self.tokenizer = learner, learner.tokenizer
        self.cut, self.finite = 0, True

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        token: int = self.tokenizer.eos_token_id
        return token

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context is conditioned on."""
        token: int | None = self.tokenizer.bos_token_id
        return self.eot_token_id if token is None else token

    @property
    def max_length(self) -> int:
        """The most tokens that the model has positions for."""
        length: int = resolve_max_length(self.learner.model.config, self.tokenizer)
        return length

    @property
    def tokenizer_name(self) -> str:
        """A name for lm-eval's records."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """A text's tokens, with the special tokens unless they are in the text or not wanted."""
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            add_special_tokens = False
        how = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        tokens: list[int] = self.tokenizer.encode(string, **how)
        return tokens

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as one text."""
        return write_chat(
            self.tokenizer,
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation after its context, and whether greedy decoding writes it."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        cut = [self._fitting(context, continuation) for _text, context, continuation in requests]
        self.cut += sum(lost > 0 for _, lost in cut)
        with self.learner.progress("likelihoods", len(cut)) as advance:
            sequences = [sequence for sequence, _ in cut]
            values, greedy = self.learner.log_likelihoods_and_greedy(sequences, advance)
        self.finite &= bool(values.isfinite().all())
        return list(zip(values.tolist(), greedy.tolist(), strict=True))

    def _fitting(self, context: list[int], continuation: list[int]) -> tuple[TokenSequence, int]:
        """A request's tokens, cut on the left to the model's length, and how many it lost."""
        whole = context + continuation
        tokens = tuple(whole[-(self.max_length + 1) :])
        sequence = TokenSequence(tokens, max(1, len(tokens) - len(continuation)))
        return sequence, len(whole) - len(tokens)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:
        """The log-likelihood of whole texts, in windows of the model's length, each token predicted once."""
        windows, owners = [], []
        for owner, request in enumerate(requests):
            (string,) = request.args
            rolling = utils.get_rolling_token_windows(
                token_list=self.tok_encode(string),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for context, continuation in map(utils.make_disjoint_window, rolling):
                windows.append((None, context, continuation))
                owners.append(owner)
        totals = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += value
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """What the model writes after each context, greedily, up to the first of the request's stop strings.

        Raises:
            UserError: If a task wants answers that are drawn, or more tokens than the model has positions.
        """
        answers: list[str] = [""] * len(requests)
        order = sorted(range(len(requests)), key=lambda k: repr(requests[k].args[1]))
        for _, group in groupby(order, key=lambda k: repr(requests[k].args[1])):
            alike = list(group)
            texts = self._generate([requests[k].args[0] for k in alike], requests[alike[0]].args[1])
            for k, text in zip(alike, texts, strict=True):
                answers[k] = text
        return answers

    def _generate(self, contexts: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
        """The answers to contexts with the same generation settings."""
        decoding = self.decoding(settings)
        cut = [self.prompt(context, decoding) for context in contexts]
        self.cut += sum(lost > 0 for _, lost in cut)
        with self.learner.progress("answers", len(cut)) as advance:
            answers = self.learner.write([prompt for prompt, _ in cut], decoding, advance=advance)
        self.finite &= all(answer.finite for answer in answers)
        return [written(answer.text, decoding) for answer in answers]

    def decoding(self, settings: Mapping[str, Any]) -> Decoding:
        """How answers are written by a task's generation settings; see `greedy_settings`."""
        settings = greedy_settings(settings)
        eos = self.tokenizer.decode([self.eot_token_id])
        until = handle_stop_sequences(settings.get("until"), eos=eos)
        return Decoding(settings["max_gen_toks"], stop=tuple(one for one in until if one))

    def prompt(self, context: str, decoding: Decoding) -> tuple[tuple[int, ...], int]:
        """A context's tokens, cut on the left to leave room for the answer, and how many it lost.

        Raises:
            UserError: If an answer may be longer than the model.
        """
        room = self.max_length - decoding.max_new_tokens
        if room < 1:
            raise UserError(
                f"this task lets the model write {decoding.max_new_tokens} tokens, but it has "
                f"{self.max_length} positions."
            )
        tokens = self.tok_encode(context)
        return tuple(tokens[-room:]), max(0, len(tokens) - room)


class RequestTokens(LearnerLM):
    """Answers a request for a likelihood by the tokens that would be scored, and how many were cut."""

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[Any]:
        return [self._fitting(context, continuation) for _text, context, continuation in requests]


def greedy_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A task's generation settings by lm-eval's own names.

    Raises:
        UserError: If its answers are not greedy.
    """
    settings = dict(normalize_gen_kwargs(dict(settings), MAX_GEN_TOKS))
    if settings.get("do_sample") or settings.get("num_beams", 1) != 1:
        raise UserError("this task samples its answers or uses beam search; only greedy answers work.")
    return settings


def written(text: str, decoding: Decoding) -> str:
    """An answer as lm-eval's filters take it: without what follows a stop string."""
    ended: str = postprocess_generated_text(text, list(decoding.stop), None)
    return ended


@contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval's bars, which do not fit with ours, from the screen."""
    bar = lm_eval.api.task.tqdm
    lm_eval.api.task.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        lm_eval.api.task.tqdm = bar
