"""Language modelling for lifelong language learning: the model writes the examples that it rehearses.

Sun, Ho and Lee (2020), "LAMOL: LAnguage MOdeling for Lifelong Language Learning", ICLR, arXiv 1909.03329.
While it learns to answer a task, the model learns to write the task's examples too:

    L = L_QA + λ · L_LM        each a mean over its own tokens

L_QA is the likelihood of the answers. L_LM is that of whole examples, prompt, answer and end, behind the
task's name. Before each further task the model writes γ pseudo-examples for each new one, in equal parts of
all tasks that it has learned, and learns from them beside the new ones, by both losses. No past example is
kept.

The paper's and its code's: both losses and λ, γ, top-k sampling with k = 20; what cannot be read as an
example is left out. Ours:
- The task's name is written in words where the paper adds a token to the vocabulary, since adapters learn no
  embedding.
- An example is read by what all prompts of its task begin and end with, where the paper adds a token between
  question and answer. What all prompts begin with is given, and not written by the model.
- γ is given as a share of the mix, as for `replay`: the paper's .2 of the new examples is 1/6 of the mix.
- What is no whole example is not written again: the rest is as large as it is, which is said.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.form import Form, write_answers, write_bodies
from forgetmenot.methods.shared.memory import even_shares
from forgetmenot.methods.shared.method import Method, Options, Stage
from forgetmenot.prompting import Encoded, Mix, TokenSequence
from forgetmenot.settings import NonNegativeFloat, PositiveFloat

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner


class LAMOL(Method):
    """Rehearse examples that the model itself writes, and teach it to write them (LAMOL)."""

    keeps = "what all of its prompts begin and end with, as tokens"
    preferences = False
    rehearses = True
    weighs = True
    shards = False  # whole examples are packed within a turn, and packs would differ among processes
    # A soft prompt drawn at random would begin a stage as no model that can write: see `lwf`.
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full")}

    class Options(Options):
        """The settings of `lamol`."""

        share: float = Field(default=1 / 6, ge=0, lt=1)
        """The part of the mix that written examples are, γ / (1 + γ). The default is the paper's."""
        strength: NonNegativeFloat = 0.25
        """λ, of the likelihood of whole examples, which is the paper's; 0, with share 0, is `sequential`."""
        top_k: int = Field(default=20, ge=0)
        """How many of the likeliest tokens each one is drawn among; 0 for all. The default is the paper's."""
        temperature: PositiveFloat = 1.0
        """The temperature of the draw. The default is the paper's."""

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.forms: dict[str, Form] = {}
        self.tasks: dict[str, str] = {}  # of written examples, by id

    def examples(self, learner: Learner, stage: Stage) -> Sequence[Encoded]:
        """The stage's own, and written ones of each earlier task after them."""
        own, share = super().examples(learner, stage), self.options.share
        count = round(len(own) * share / (1 - share))
        shares = even_shares(count, [count] * len(self.forms))
        self.rehearsed = {
            task: self._write(learner, stage, task, wanted)
            for task, wanted in zip(self.forms, shares, strict=True)
            if wanted
        }
        self.tasks = {one.id: task for task, written in self.rehearsed.items() for one in written}
        return Mix(own, [one for written in self.rehearsed.values() for one in written])

    def begin(self, learner: Learner, stage: Stage) -> None:
        """Learn what the task's examples have in common, and how long whole examples are."""
        (self.task,) = stage.tasks
        examples = stage.data[self.task]
        form = Form.of(self.task, examples, learner.tokenizer.bos_token_id)
        self.forms = {**self.forms, self.task: form}
        self.names = {task: self._named(learner, task) for task in self.forms}
        whole = [self._whole(one) for one in examples]
        longest, positions = max(len(one.tokens) for one in whole), learner.max_positions
        if positions is not None and longest > positions:
            raise UserError(
                f"method lamol learns whole examples behind the task's name, which takes {longest} tokens in "
                f"task {self.task!r}, and the model has {positions} positions. Set training.max_length to at "
                f"most {positions - (longest - max(len(e.answer.tokens) for e in examples))}."
            )
        answered = sum(len(one.answer.tokens) - one.answer.start for one in examples)
        self.ratio = answered / sum(len(one.tokens) - one.start for one in whole)

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        """The negative log-likelihood of the answers, and λ times that of whole examples."""
        strength: float = self.options.strength
        if not strength:
            return super().loss(learner, batch)
        from forgetmenot.engine.objectives import weights

        whole = [self._whole(one) for one in batch]
        found = learner.forward_in_packs([*(one.answer for one in batch), *whole])
        if learner.loss_average == "example":
            modelled = found.new_tensor([1 / (len(one.tokens) - one.start) for one in whole])
        else:
            modelled = found.new_full((len(whole),), self.ratio)
        answered = found[: len(batch)] * weights(learner, batch)
        return -(answered.sum() + strength * (found[len(batch) :] * modelled).sum())

    def _whole(self, example: Encoded) -> TokenSequence:
        """An example behind its task's name, of which everything else is learned."""
        task = self.tasks.get(example.id, self.task)
        begin = self.forms[task].begin
        name = self.names[task]
        return TokenSequence((*begin, *name, *example.answer.tokens[len(begin) :]), len(begin) + len(name))

    def _named(self, learner: Learner, task: str) -> tuple[int, ...]:
        """What stands before an example of a task, as the token that the paper adds for it."""
        return tuple(learner.tokenizer.encode(f"__{task}__ ", add_special_tokens=False))

    def _write(self, learner: Learner, stage: Stage, task: str, count: int) -> list[Encoded]:
        """So many pseudo-examples of a task, without those that are none."""
        form, draw = self.forms[task], self.options
        context = (*form.begin, *self._named(learner, task))
        seeds = self._seeds(stage, task, 2 * count)
        bodies = write_bodies(
            learner,
            form,
            [context] * count,
            seeds[:count],
            temperature=draw.temperature,
            top_k=draw.top_k,
            what=f"writing examples of {task}",
        )
        whole = [body for body in bodies if body is not None]
        answers = write_answers(
            learner,
            form,
            [(*context, *form.head, *body, *form.tail) for body in whole],
            seeds[count : count + len(whole)],
            temperature=draw.temperature,
            top_k=draw.top_k,
            what=f"answering examples of {task}",
        )
        found: list[Encoded] = []
        for body, answer in zip(whole, answers, strict=True):
            gold = form.label(answer, learner.ends)
            if gold is not None or (not form.answers and answer and answer[-1] in learner.ends):
                found.append(form.example(f"{task}: written {stage.number}.{len(found)}", body, answer, gold))
        self.notes.append(
            f"{task}: {count} examples written, {count - len(whole)} without the end of a prompt, "
            f"{len(whole) - len(found)} without an answer; {len(found)} are rehearsed."
            + ("" if found else " The model does not write this task yet: train longer, or raise strength.")
        )
        return found

    def _seeds(self, stage: Stage, task: str, count: int) -> list[int]:
        """A seed for each draw, in whichever batch and process it is made."""
        place = np.random.SeedSequence([self.seed, stage.number, zlib.crc32(task.encode())])
        return [int(one) for one in place.generate_state(count)]

    def state_dict(self) -> dict[str, Any]:
        """The form of each task's prompts."""
        return {"forms": {task: form.plain() for task, form in self.forms.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.forms = {task: Form.from_plain(form) for task, form in state["forms"].items()}
