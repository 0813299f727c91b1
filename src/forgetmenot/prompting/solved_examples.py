"""Solved examples as text: the format that SampleGen models write, and its controls.

Bigoulaeva, Tayyar Madabushi and Gurevych 2025 (arXiv 2501.08716): numbered examples, "Example 1: … Answer 1:
…", then the example to solve, "Solution: … Answer Solution:", and END_EXAMPLES behind the answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from forgetmenot.tasks.task import Example

SOLUTION = "Solution"
CUE = f"Answer {SOLUTION}:"
END = "END_EXAMPLES"
BLANK = "(blank)"
"""What stands in place of all that a corrupted example says: the word of the official code."""


@dataclass(frozen=True)
class ExampleFormat:
    """How the examples of one task are written.

    Attributes:
        fields: The fields that are written, in order.
        choices: Label to the words that stand for it; all of them are an example's options.
        unified: Whether fields are called "Input 1", "Input 2" and so on, in every task alike.
        answered: Whether a solved example says its answer.
        blank: Whether a solved example says nothing else either.
        wordy: Whether the example to solve is asked in many words.
    """

    fields: tuple[str, ...]
    choices: Mapping[str, str]
    unified: bool = False
    answered: bool = True
    blank: bool = False
    wordy: bool = False

    def solved(self, number: int, example: Example) -> str:
        """A numbered example with its answer."""
        lines = [f"Example {number}:", *self._lines(str(number), example, blank=self.blank)]
        answer = BLANK if self.blank else self.choices[str(example.label)] if self.answered else ""
        return "\n".join([*lines, f"Answer {number}: {answer}".rstrip()])

    def to_solve(self, example: Example) -> str:
        """The example that is to be solved, up to where its answer follows."""
        if not self.wordy:
            return "\n".join([f"{SOLUTION}:", *self._lines(SOLUTION, example), CUE])
        said = " ".join(str(example.fields[name]) for name in self.fields)
        return "\n".join(
            [
                f"{SOLUTION}:",
                "It is with the utmost esteem that we lay before you, and commend to your patient "
                f"examination, the matter which is set forth in what follows: {said} Be it further observed "
                "that whosoever would pronounce upon it must needs elect a single one from among the "
                f"following, to the exclusion of all others: {self._options}",
                CUE,
            ]
        )

    def in_context(
        self, shown: Sequence[Example], example: Example, shown_as: "ExampleFormat | None" = None
    ) -> str:
        """Solved examples, and then the one to solve.

        Args:
            shown: The solved ones.
            example: The one to solve.
            shown_as: How the solved ones are written, where they are of another task.
        """
        solved = (shown_as or self).solved
        return "\n\n".join([*(solved(k, one) for k, one in enumerate(shown, 1)), self.to_solve(example)])

    def learned(self, shown: Sequence[Example], example: Example) -> str:
        """What a SampleGen model learns to write: examples, then the solution of its own one."""
        return f"{self.in_context(shown, example)} {self.choices[str(example.label)]}\n{END}"

    @property
    def _options(self) -> str:
        return ", ".join(self.choices.values())

    def _lines(self, number: str, example: Example, *, blank: bool = False) -> list[str]:
        values = [*((name.capitalize(), str(example.fields[name])) for name in self.fields)]
        values.append(("Options", self._options))
        names = [
            f"Input {k}" if self.unified else f"{name} {number}" for k, (name, _) in enumerate(values, 1)
        ]
        return [
            f"{name}: {BLANK if blank else value}" for name, (_, value) in zip(names, values, strict=True)
        ]


Control = Callable[[ExampleFormat], ExampleFormat]
CONTROLS: dict[str, Control] = {
    "unified": lambda own: replace(own, unified=True),
    "corrupted": lambda own: replace(own, blank=True),
    "unanswered": lambda own: replace(own, answered=False),
    "irrelevant": lambda own: own,
    "verbose": lambda own: replace(own, wordy=True),
}
"""What else may explain that examples help: one change each to how they are written.

`irrelevant` changes none of the writing: it shows examples of another task.
"""


def up_to_cue(written: str) -> str:
    """What a SampleGen model wrote, up to where its answer follows; the cue is put there if it is not."""
    before, _, _ = written.partition(CUE)
    return f"{before.strip()}\n{CUE}"
