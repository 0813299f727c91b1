"""Self-synthesized rehearsal: the base model writes a task's inputs, the newest model answers them.

Huang et al. (2024), "Mitigating Catastrophic Forgetting in Large Language Models with Self-Synthesized
Rehearsal", ACL, arXiv 2403.01244 (SSR). At the end of a stage

1. the base model sees two solved examples of the task and writes a further input;
2. the inputs are clustered by their embeddings (k-means, 20 clusters), and of each cluster, in proportion to
   its size, those nearest to its centre are kept;

and before each later stage

3. the newest model answers what is kept, greedily, and these pairs are trained on beside the new examples.

The paper's and its code's: two demonstrations in an order at random, of 20 solved examples; nucleus sampling
(p = .6, temperature .9), about 5.7 times as many as are kept; repeats are left out; 20 clusters of
unit-length embeddings; 10 % of each task's examples are kept, and all are replayed. Ours:
- Embeddings are the base model's own last hidden states where theirs are SimCSE's: no second model is needed.
- No repetition penalty (theirs is 1.2), and no words around the demonstrations but the task's own prompts.
- An input is read by what all prompts of the task begin and end with, and what they begin with is given.
- The base is every adapter at its start, as for `kl`.

The demonstrations are the stage's own; none is kept, so that later stages need no past example.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.anchor import beside, from_state, to_state
from forgetmenot.methods.shared.form import Form, Ids, write_answers, write_bodies
from forgetmenot.methods.shared.method import Stage
from forgetmenot.methods.shared.mixing import Mixing, MixOptions
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import Encoded, Mix
from forgetmenot.settings import PositiveFloat, PositiveInt

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner, Snapshot


class SSROptions(MixOptions):
    """How examples are written and kept. The defaults are the paper's and its code's."""

    share: Annotated[float, Field(ge=0, lt=1)] | Literal["all"] = "all"
    """The part of the mix that written examples are; `all` replays all that are kept."""
    memory: Annotated[int, Field(ge=0, strict=True)] | Annotated[float, Field(ge=0, le=1, strict=True)] = 0.1
    """How many are kept of each task: a whole number, or a fraction of its training data with a decimal
    point. 0 is `sequential`."""
    candidates: float = Field(default=5.7, ge=1)
    """How many are written for each that is kept."""
    demonstrations: PositiveInt = 20
    """How many solved examples the demonstrations are drawn from."""
    shots: PositiveInt = 2
    """How many the base model sees at once."""
    clusters: PositiveInt = 20
    """How many clusters the inputs are divided into; fewer where fewer are kept."""
    temperature: PositiveFloat = 0.9
    """The temperature of the draw."""
    top_p: float = Field(default=0.6, gt=0, le=1)
    """Draw among the fewest tokens that together reach p."""


class SSR(Mixing):
    """Replay inputs that the base model has written, with the newest model's answers (SSR)."""

    Options = SSROptions
    keeps = "examples written by the model, as tokens, and one copy of what learns, as the base has it"
    past_data = False
    shards = False
    preferences = False
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full")}

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.base: Snapshot = {}
        self.forms: dict[str, Form] = {}

    def check(self, adapter: AdapterSettings) -> None:
        """The base must still be within reach."""
        super().check(adapter)
        if adapter.per_stage == "merge":
            raise UserError(
                "method ssr writes with the base model, but adapter.per_stage: merge merges each adapter "
                "into it. Use per_stage: continue or new, or method lamol."
            )

    def examples(self, learner: Learner, stage: Stage) -> Mix:
        """The stage's own, and after them what is replayed, answered by the model as it stands."""
        if self.memory:
            self.memory = {
                task: self._answered(learner, stage, task, kept) for task, kept in self.memory.items()
            }
        return super().examples(learner, stage)

    def begin(self, learner: Learner, stage: Stage) -> None:
        """What learns for the first time is as the base has it; of the rest that is remembered."""
        self.base = {**learner.snapshot(), **beside(learner, self.base)}

    def end(self, learner: Learner, stage: Stage) -> None:
        """Write the task's examples, and keep those that stand for the others."""
        for task, examples in stage.data.items():
            count = self.room(examples)
            if not count or self.options.share == 0:
                continue
            self.forms[task] = Form.of(task, examples, learner.tokenizer.bos_token_id)
            with learner.with_weights(self.base):
                bodies = self._written(learner, stage, task, examples, round(count * self.options.candidates))
                kept = self._chosen(learner, task, bodies, count)
            self.notes.append(
                f"{len(kept)} of them are kept to be rehearsed."
                + ("" if kept else " The base model does not go on from examples of this task.")
            )
            if kept:
                self.memory[task] = [
                    self.forms[task].example(f"{task}: written {k}", body, ()) for k, body in enumerate(kept)
                ]

    def _written(
        self, learner: Learner, stage: Stage, task: str, examples: Sequence[Encoded], count: int
    ) -> list[Ids]:
        """Different inputs of a task that the base model writes after a few solved examples."""
        form, draw, random = self.forms[task], self.options, self.random(stage, f"write {task}")
        pool = random.permutation(len(examples))[: draw.demonstrations]
        shots = min(draw.shots, len(pool))
        between = self._between(learner, form)
        room = (learner.max_positions or 10**9) - form.room - len(form.tail) - len(form.begin)
        contexts, fewer = [], 0
        for _ in range(count):
            shown = [
                (*_solved(form, examples[k]), *between) for k in random.choice(pool, shots, replace=False)
            ]
            while len(shown) > 1 and sum(map(len, shown)) > room:
                shown.pop()
            fewer += len(shown) < shots
            contexts.append((*form.begin, *(token for one in shown for token in one)))
        if fewer:
            self.notes.append(
                f"{task}: {fewer} of {count} requests show fewer than {shots} examples, since the model has "
                f"{learner.max_positions} positions; set method.shots lower."
            )
        bodies = write_bodies(
            learner,
            form,
            contexts,
            [int(seed) for seed in random.integers(2**31, size=count)],
            temperature=draw.temperature,
            top_p=draw.top_p,
            what=f"writing examples of {task}",
        )
        whole = [body for body in bodies if body is not None]
        different = list(dict.fromkeys(whole))
        self.notes.append(
            f"{task}: {count} examples written, {count - len(whole)} without the end of a prompt, "
            f"{len(whole) - len(different)} repeat another."
        )
        return different

    def _between(self, learner: Learner, form: Form) -> Ids:
        """What stands between solved examples: an empty line; in a chat the end of a turn and a new line."""
        chat = any(token in learner.ends for token in form.tail)
        text = "\n" if chat else "\n\n"
        return (*(form.closing if chat else ()), *learner.tokenizer.encode(text, add_special_tokens=False))

    def _chosen(self, learner: Learner, task: str, bodies: Sequence[Ids], count: int) -> list[Ids]:
        """At most `count` inputs: of each cluster, in proportion, those nearest to its centre."""
        if len(bodies) <= count:
            return list(bodies)
        states = learner.hidden([self.forms[task].prompt(body) for body in bodies])
        chosen = nearest_to_centres(states, count, self.options.clusters, self.seed)
        return [bodies[k] for k in chosen]

    def _answered(self, learner: Learner, stage: Stage, task: str, kept: Sequence[Encoded]) -> list[Encoded]:
        """The same inputs with the answers that the model gives now: its likeliest label, or what it writes.

        What it does not end within the length of the task's longest answer keeps the answer that it had.
        """
        form = self.forms[task]
        begun = len(form.begin) + len(form.head)
        bodies = [one.prompt[begun : len(one.prompt) - len(form.tail)] for one in kept]
        if form.answers:
            golds = [int(values.argmax()) for values in learner.score(kept)]
            return [
                form.example(one.id, body, (), gold)
                for one, body, gold in zip(kept, bodies, golds, strict=True)
            ]
        written = write_answers(
            learner,
            form,
            [one.prompt for one in kept],
            [0] * len(kept),
            temperature=0,
            what=f"answering examples of {task}",
        )
        answered = [
            form.example(one.id, body, answer) if answer and answer[-1] in learner.ends else one
            for one, body, answer in zip(kept, bodies, written, strict=True)
        ]
        return [one for one in answered if len(one.answer.tokens) > one.answer.start]

    def state_dict(self) -> dict[str, Any]:
        """What is kept, and the base's values."""
        forms = {task: form.plain() for task, form in self.forms.items()}
        return {**super().state_dict(), "forms": forms, **to_state(base=self.base)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        super().load_state_dict(state)
        self.forms = {task: Form.from_plain(form) for task, form in state["forms"].items()}
        self.base = from_state(state, "base")


def nearest_to_centres(features: Tensor, count: int, clusters: int, seed: int) -> list[int]:
    """Rows that stand for the others: of each k-means cluster, in proportion, those nearest to its centre.

    Args:
        features: [rows, width]; made unit-length.
        count: How many rows; fewer than there are.
        clusters: How many clusters; at most `count`.
        seed: Of the clusters' first centres.

    Returns:
        Their places, in order. Rounding is by largest remainders, so that exactly `count` are chosen.
    """
    import torch.nn.functional as F
    from scipy.cluster.vq import kmeans2

    unit = F.normalize(features.double(), dim=1).numpy()
    with warnings.catch_warnings():  # where rows are alike a cluster may be empty, and stands for none
        warnings.filterwarnings("ignore", "One of the clusters is empty", UserWarning)
        centres, labels = kmeans2(unit, min(clusters, count), iter=100, minit="++", seed=seed)
    distance = np.linalg.norm(unit - centres[labels], axis=1)
    members = [np.flatnonzero(labels == cluster) for cluster in range(len(centres))]
    exact = np.array([len(one) for one in members]) * count / len(unit)
    shares = np.floor(exact).astype(int)
    for cluster in np.argsort(shares - exact, kind="stable")[: count - int(shares.sum())]:
        shares[cluster] += 1
    chosen = [
        int(k)
        for rows, share in zip(members, shares, strict=True)
        for k in rows[np.argsort(distance[rows], kind="stable")[:share]]
    ]
    return sorted(chosen)


def _solved(form: Form, example: Encoded) -> Ids:
    """An example's prompt and answer, without what begins a text and what ends an answer."""
    end = len(example.answer.tokens) - len(form.closing)
    return example.answer.tokens[len(form.begin) : end]
