"""How examples of a task are written: what a method needs that makes new ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forgetmenot.prompting.encoded import Encoded
from forgetmenot.prompting.encoder import Encoder
from forgetmenot.prompting.prompt import Prompt
from forgetmenot.prompting.tokens import tokens_of
from forgetmenot.tasks.task import Example, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Wording:
    """A task with its prompt, for one tokenizer.

    Attributes:
        task: The task.
        prompt: That of its training examples.
        examples: The rows that a stage trains on.
        tokenizer: The model's own.
        max_length: The most tokens that a prompt may have with its longest answer and its end.
    """

    task: Task
    prompt: Prompt
    examples: Sequence[Example]
    tokenizer: "PreTrainedTokenizerBase"
    max_length: int

    @property
    def system_turns_moved(self) -> int:
        """How many examples have a system turn, where the chat template takes none."""
        if not self.prompt.chat or tokens_of(self.tokenizer).takes_system:
            return 0
        if self.task.kind != "messages":
            return len(self.examples) if self.prompt.system is not None else 0
        return sum(one.fields["messages"][0]["role"] == "system" for one in self.examples)

    def encode(self, examples: Sequence[Example]) -> Sequence[Encoded]:
        """Examples as the stage's own are: see `Encoder.encode_all`."""
        return Encoder(self.task, self.prompt, self.tokenizer, self.max_length).encode_all(examples)
