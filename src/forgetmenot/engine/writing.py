"""The text that a model writes: greedily, drawn by seeds, or by vLLM."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from forgetmenot.engine import ranks
from forgetmenot.engine.decoding import Answer, Decoding
from forgetmenot.engine.generate import Batch, Writer
from forgetmenot.engine.laid_out import Advance, evaluating
from forgetmenot.engine.merging import largest_difference, last_tokens
from forgetmenot.engine.readings import Readings
from forgetmenot.engine.vllm_backend import write_by_vllm
from forgetmenot.errors import UserError
from forgetmenot.models.composition import composition
from forgetmenot.models.quantize import merged
from forgetmenot.prompting.encoded import Encoded, TokenSequence

MERGED_SAMPLE = 16  # prompts on which a merged model is held against this one; ours


class Writing(Readings):
    """Answers to prompts."""

    def generate(
        self,
        prompts: Sequence[tuple[int, ...]],
        max_new_tokens: int,
        advance: Advance | None = None,
    ) -> list[str]:
        """The text that the model writes after each prompt, greedily, up to where its answer ends.

        Raises:
            UserError: If the model's logits are no numbers.
        """
        answers = self.write(prompts, Decoding(max_new_tokens), advance=advance)
        if not all(answer.finite for answer in answers):
            raise UserError(
                "The model's logits are not finite (nan or infinite), so it writes nothing: its weights are "
                "broken, or it has diverged in training."
            )
        return [answer.text for answer in answers]

    def write(
        self,
        prompts: Sequence[tuple[int, ...]],
        decoding: Decoding,
        *,
        seeds: Sequence[int] | None = None,
        margins: bool = False,
        batch_positions: int | None = None,
        advance: Advance | None = None,
        done: Mapping[int, Answer] | None = None,
        save: Callable[[Batch], None] | None = None,
    ) -> list[Answer]:
        """What the model writes after each prompt, greedily or drawn; see `forgetmenot.engine.generate`."""
        behind = [self.soft_tokens + prompt for prompt in prompts]
        written = dict(done or {})

        def keep(batch: Batch) -> None:
            written.update(batch)  # where a later one does not fit into memory, it is not written again
            if save is not None:
                save(batch)

        with evaluating(self.model), self._computing():
            return self.within_memory(
                lambda: self._writer(batch_positions).write(
                    behind, decoding, seeds=seeds, margins=margins, advance=advance, done=written, save=keep
                )
            )

    def write_by_vllm(
        self,
        prompts: Sequence[tuple[int, ...]],
        decoding: Decoding,
        *,
        seeds: Sequence[int] | None = None,
        margins: bool = False,
        advance: Advance | None = None,
    ) -> list[Answer]:
        """The same by vLLM, from a copy of the model with its adapters merged, written to disk for it.

        Raises:
            UserError: If vLLM cannot be had, the model is shared among processes, it has a soft prompt or a
                bridge, or merging changes its answers.
        """
        if self.soft_tokens or composition(self.model) is not None:
            raise UserError(
                "evaluation.generation.backend: vllm takes no soft prompt and no bridge; use transformers."
            )
        if ranks.world_size() > 1:
            raise UserError("evaluation.generation.backend: vllm runs in one process; launch one.")
        with evaluating(self.model), TemporaryDirectory() as folder:
            plain = merged(deepcopy(self.model))
            sample = last_tokens(prompts[:MERGED_SAMPLE])
            if sample:
                with self.uncounted():
                    before = self.log_likelihoods(sample)
                largest_difference(replace(self, model=plain), sample, before)
            plain.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            dtype = torch.bfloat16 if self.precision == "bf16" else plain.dtype
            del plain
            answers = write_by_vllm(
                Path(folder),
                self.tokenizer,
                self.ends,
                prompts,
                decoding,
                dtype=dtype,
                seeds=seeds,
                margins=margins,
            )
        if advance is not None:
            advance(len(prompts))
        return answers

    def _writer(self, batch_positions: int | None = None) -> Writer:
        most = batch_positions if self.together else 1
        cached = self.layout == "trie"
        return Writer(self.model, self.tokenizer, self.ends, cached, self.continues, most, self.divided)

    def sample(
        self, examples: Sequence[Encoded], seeds: Sequence[int], lengths: Sequence[int] | None = None
    ) -> list[TokenSequence]:
        """Each example's prompt with an answer of the model's own, drawn token by token.

        It ends where an answer ends, or is cut where it has so many tokens: by default as many as the
        example's answer. This process draws all of them itself; what is drawn follows from the weights and
        the example's seed alone.
        """
        prompts = [example.answer.tokens[: example.answer.start] for example in examples]
        if lengths is None:
            lengths = [len(example.answer.tokens) - example.answer.start for example in examples]
        behind = [self.soft_tokens + prompt for prompt in prompts]
        with evaluating(self.model), self._computing():
            decoding = Decoding(max(lengths), temperature=1.0)
            answers = self.within_memory(
                lambda: self._writer().write(behind, decoding, seeds=seeds, dealt=False)
            )
        return [
            TokenSequence(prompt + answer.tokens[:length], len(prompt))
            for prompt, answer, length in zip(prompts, answers, lengths, strict=True)
        ]
