"""SELF-GUIDE: a model writes inputs for a task, answers them, and keeps what it answers consistently.

Zhao, Jia, Viswanathan, Wu and Neubig 2024 (COLM, arXiv 2407.12874). In rounds the model writes inputs from
those of the demonstrations and a few of its own earlier ones; inputs are filtered; it answers each several
times, with the demonstrations before it; outputs are filtered, and the most frequent one is the answer if it
is frequent enough; the rows of a classification are balanced. Training on them is a run like any other.

Our own: a round shows the demonstrations in one order, drawn for that round, so that they are computed once
(the official code draws an order for each prompt); labels are read by the rules of
`forgetmenot.prompting.parse_choice` (the official code takes the first label that stands anywhere in the
output); whatever is drawn follows from its own seed.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from forgetmenot.engine.decoding import Decoding
from forgetmenot.errors import UserError
from forgetmenot.prompting import parse_choice
from forgetmenot.prompting.texts import BETWEEN
from forgetmenot.synthesis.balance import balanced
from forgetmenot.synthesis.consistency import most_consistent
from forgetmenot.synthesis.draw_log import DrawLog
from forgetmenot.synthesis.filters import Window, why_dropped, window_of
from forgetmenot.synthesis.funnel import (
    INCONSISTENT,
    NO_LABEL,
    NO_OUTPUT,
    REPEAT,
    SPARE,
    TOO_LONG,
    UNREADABLE,
    Candidate,
    Synthesis,
    funnel_of,
)
from forgetmenot.synthesis.settings import SynthesisSettings
from forgetmenot.synthesis.subject import CLOSING, Request, Subject, cleaned
from forgetmenot.synthesis.writer import Advance, Drawn, Writer, seed_of
from forgetmenot.synthesis.written_form import read_input
from forgetmenot.tasks import Example

AT_ONCE = 32
"""Inputs whose outputs are drawn together, so that a kill loses no more."""

Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""A bar: given what it is and how many there are, a context with a function to tell how many are done."""


def unseen(description: str, total: int) -> AbstractContextManager[Advance]:
    """Progress that is not shown."""
    return nullcontext(lambda count: None)


def synthesize_examples(
    writer: Writer,
    subject: Subject,
    settings: SynthesisSettings | None = None,
    *,
    seed: int = 0,
    log: DrawLog | None = None,
    progress: Progress = unseen,
) -> Synthesis:
    """Let a model write solved examples of a task.

    Args:
        writer: The model, as it stands: `LearnerWriter(learner)`.
        subject: The task with its prompt and its demonstrations.
        settings: The paper's where None.
        seed: Of all draws.
        log: Where what is drawn is kept for a process that goes on from there.
        progress: How it is shown.

    Raises:
        UserError: The demonstrations do not fit the settings, or a prompt does not fit the model.
    """
    settings = (settings or SynthesisSettings()).of(subject.task.kind)
    log = log or DrawLog()
    found = _Guide(writer, subject, settings, seed, log)
    with progress(f"{subject.task.name}: writing inputs", settings.rounds * settings.per_round) as advance:
        for number in range(settings.rounds):
            found.write_inputs(number)
            advance(settings.per_round)
    asked = found.passed
    with progress(f"{subject.task.name}: answering inputs", len(asked)) as advance:
        for first in range(0, len(asked), AT_ONCE):
            found.write_outputs(asked[first : first + AT_ONCE])
            advance(len(asked[first : first + AT_ONCE]))
    found.balance()
    return Synthesis(found.rows(), funnel_of(found.candidates, subject.task.kind), found.candidates)


def check_fits(writer: Writer, subject: Subject, settings: SynthesisSettings) -> None:
    """See that a request for an input fits the context, before anything is drawn.

    Raises:
        UserError: Instruction and demonstrations alone are too long.
    """
    alone = settings.model_copy(update={"input_window": False, "output_window": False})
    _Guide(writer, subject, alone, 0, DrawLog()).check_fits()


class _Guide:
    """One synthesis under way."""

    def __init__(
        self, writer: Writer, subject: Subject, settings: SynthesisSettings, seed: int, log: DrawLog
    ) -> None:
        self.writer, self.subject, self.settings, self.seed, self.log = writer, subject, settings, seed, log
        self.noise = settings.noise or ()
        self.input_window = _window(settings.input_window, subject.inputs, "input")
        self.output_window = _window(settings.output_window, subject.answers, "output")
        self.candidates: list[Candidate] = []
        self.known = {self._said(read_input(text, subject.fields)) for text in subject.inputs}

    @property
    def passed(self) -> list[Candidate]:
        """The inputs that nothing has dropped so far."""
        return [one for one in self.candidates if one.dropped is None]

    def check_fits(self) -> None:
        """See that a request without earlier inputs fits."""
        self._request(self.subject.inputs, (), self._label(0), 0)

    def write_inputs(self, round: int) -> None:
        """A round: as many requests as are set, each with a draw of worse examples of its own."""
        chat, settings = self.settings.chat, self.settings
        good = list(self.subject.inputs)
        random.Random(seed_of(self.seed, "order", round)).shuffle(good)
        earlier = [str(one.input) for one in self.passed]
        places = range(len(self.candidates), len(self.candidates) + settings.per_round)
        labels = [self._label(place) for place in places]
        requests = [
            self._request(good, earlier, label, place) for place, label in zip(places, labels, strict=True)
        ]
        decoding = Decoding(
            settings.max_input_tokens,
            stop=self.noise if chat else (CLOSING, *self.noise),
            temperature=settings.temperature or 1.0,
            top_k=settings.top_k,
        )
        seeds = [seed_of(self.seed, "input", place) for place in places]
        drawn = self.log.drawn(requests, decoding, seeds, lambda: self.writer.draw(requests, decoding, seeds))
        for place, label, one in zip(places, labels, drawn, strict=True):
            candidate = Candidate(place, round, label, one.text)
            self._take_in(candidate, cleaned(one.text, chat=chat))
            self.candidates.append(candidate)

    def _label(self, place: int) -> str | None:
        """The label that an input is to have, drawn uniformly."""
        labels = self.subject.task.labels
        choice = self.subject.task.kind == "choice"
        return random.Random(seed_of(self.seed, "label", place)).choice(labels) if choice else None

    def _request(self, good: Sequence[str], earlier: Sequence[str], label: str | None, place: int) -> Request:
        """A request with one to `worse` earlier inputs, or as many of them as the context holds.

        Raises:
            UserError: It holds none.
        """
        draw = random.Random(seed_of(self.seed, "worse", place))
        most = min(len(earlier), self.settings.worse)
        worse = draw.sample(list(earlier), draw.randint(1, most)) if most else []
        words = None if label is None else self.subject.prompt.choices[label]
        while True:
            request = self.subject.ask_for_input(good, worse, words, chat=self.settings.chat)
            length = self.writer.length(request)
            if length < self.settings.context_tokens:
                return request
            if not worse:
                raise UserError(
                    f"context_tokens: instruction and demonstrations alone take {length} tokens, and prompts "
                    f"have fewer than {self.settings.context_tokens}; show fewer demonstrations, or raise it "
                    "as far as the model has positions."
                )
            worse.pop()

    def _take_in(self, candidate: Candidate, text: str) -> None:
        """Filter an input."""
        text_of_it = text.strip()
        candidate.dropped = why_dropped(text, self.noise, self.input_window)
        if candidate.dropped is not None:
            return
        fields = read_input(text_of_it, self.subject.fields)
        if fields is None:
            candidate.dropped = UNREADABLE
        elif self._said(fields) in self.known:
            candidate.dropped = REPEAT
        elif self.writer.length(self._output_request(text_of_it)) >= self.settings.context_tokens:
            candidate.dropped = TOO_LONG
        else:
            candidate.input = text_of_it
            self.known.add(self._said(fields))

    def _said(self, fields: Mapping[str, Any] | None) -> tuple[str, ...]:
        """What an input says, however many blanks stand around its fields; of one without fields nothing."""
        return tuple(fields.values()) if fields is not None else ()

    def _example(self, text: str, id: str = "") -> Example:
        fields = read_input(text, self.subject.fields)
        assert fields is not None, "only inputs that can be read are taken in"
        return Example(id, fields)

    def _output_request(self, text: str) -> Request:
        return self.subject.ask_for_output(self._example(text))

    def write_outputs(self, some: Sequence[Candidate]) -> None:
        """Answer some inputs."""
        settings, chat = self.settings, self.subject.guided.chat
        of_each = [
            (one, self._output_request(str(one.input)), k) for one in some for k in range(settings.best_of)
        ]
        requests = [request for _, request, _ in of_each]
        seeds = [seed_of(self.seed, "output", one.number, k) for one, _, k in of_each]
        ending = () if chat else (BETWEEN,)  # where the next demonstration would begin
        decoding = Decoding(
            settings.max_output_tokens,
            stop=(*self.subject.task.generation.stop, *ending, *self.noise),
            temperature=settings.output_temperature,
            top_k=settings.output_top_k,
        )
        weighed = settings.best_of > settings.outputs
        drawn = self.log.drawn(
            requests,
            decoding,
            seeds,
            lambda: self.writer.draw(requests, decoding, seeds, weighed=weighed),
            weighed=weighed,
        )
        for place, one in enumerate(some):
            first = place * settings.best_of
            self._answer(one, likeliest(drawn[first : first + settings.best_of], settings.outputs))

    def _answer(self, candidate: Candidate, outputs: Sequence[Drawn]) -> None:
        """Filter the outputs of an input, and take the most consistent one."""
        ends = [*self.subject.task.generation.stop, *([] if self.subject.guided.chat else [BETWEEN])]
        written = [_before(one.text, ends) for one in outputs]
        candidate.outputs = [
            (text.strip(), why_dropped(text.strip(), self.noise, self.output_window)) for text in written
        ]
        left = [text for text, reason in candidate.outputs if reason is None]
        candidate.answer = most_consistent(left, self.settings.min_frequency or 0.0)
        if not left:
            candidate.dropped = NO_OUTPUT
        elif candidate.answer is None:
            candidate.dropped = INCONSISTENT
        elif self.subject.task.kind == "choice":
            candidate.label = parse_choice(candidate.answer, self.subject.prompt.choices)
            candidate.dropped = NO_LABEL if candidate.label is None else None

    def balance(self) -> None:
        """Drop what labels have more than the rarest one."""
        if self.subject.task.kind != "choice" or not self.settings.balance:
            return
        labelled = self.passed
        kept = set(balanced([str(one.label) for one in labelled], seed_of(self.seed, "balance")))
        for place, one in enumerate(labelled):
            if place not in kept:
                one.dropped = SPARE

    def rows(self) -> list[Example]:
        """What is left, as examples."""
        choice = self.subject.task.kind == "choice"
        return [
            Example(
                f"synthetic-{one.number}",
                self._example(str(one.input)).fields,
                label=one.label if choice else None,
                target=None if choice else one.answer,
            )
            for one in self.passed
        ]


def likeliest(drawn: Sequence[Drawn], count: int) -> list[Drawn]:
    """The `count` likeliest of some texts, in the order in which they were drawn."""
    if count >= len(drawn):
        return list(drawn)
    order = sorted(range(len(drawn)), key=lambda k: -(drawn[k].log_likelihood or 0.0))
    return [drawn[k] for k in sorted(order[:count])]


def _before(text: str, ends: Sequence[str]) -> str:
    """A text up to the first of some strings."""
    return text[: min((at for end in ends if (at := text.find(end)) >= 0), default=len(text))]


def _window(wanted: bool | None, texts: Sequence[str], what: str) -> Window | None:
    """The lengths of what the demonstrations have.

    Raises:
        UserError: No length lies in it, so that everything would be dropped.
    """
    window = window_of(texts) if wanted else None
    if window is not None and window.is_empty:
        raise UserError(
            f"{what}_window: the {what}s of the demonstrations are all {len(texts[0])} characters long, so "
            f"no length is within two deviations of their mean; set {what}_window: false, or give others."
        )
    return window
