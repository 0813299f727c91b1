"""Judges: a model behind an OpenAI-compatible endpoint, or a local one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from forgetmenot.engine import ranks
from forgetmenot.errors import UserError
from forgetmenot.models.settings import ModelSettings
from forgetmenot.probes.shared.judgements import Judge
from forgetmenot.prompting.tokens import Ids, Tokens
from forgetmenot.synthesis.endpoint import Endpoint, EndpointSettings, Messages

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner

JudgeSettings = EndpointSettings | ModelSettings

LOCAL_REPLY = 512  # tokens that a local judge may write


def make_judge(settings: JudgeSettings) -> Judge:
    """The judge of a config; an endpoint is not asked yet, and a model not loaded yet.

    Raises:
        UserError: If the endpoint's key is not set, or a model here would have to work in several processes.
    """
    if isinstance(settings, EndpointSettings):
        return EndpointJudge(settings)
    return LocalJudge(settings)


class EndpointJudge:
    """Asks an endpoint, several comparisons at a time."""

    def __init__(self, settings: EndpointSettings) -> None:
        self.name = settings.model
        self._endpoint = Endpoint(settings)

    def replies(self, conversations: Sequence[Messages]) -> Iterator[tuple[int, str]]:
        """Each conversation's number and the reply to it, as they come."""
        return self._endpoint.complete_all(conversations)


class LocalJudge:
    """Asks a model that is loaded beside the one that is judged, when it is first needed; greedy replies."""

    def __init__(self, settings: ModelSettings) -> None:
        if ranks.world_size() > 1:
            raise UserError(
                "judge: a model that is loaded here works in one process; put it behind an endpoint, or "
                "leave out --num-processes."
            )
        self.name = settings.name + (f"@{settings.revision}" if settings.revision else "")
        self._settings = settings
        self._learner: Learner | None = None

    def replies(self, conversations: Sequence[Messages]) -> Iterator[tuple[int, str]]:
        """Each conversation's number and the reply to it, batch after batch."""
        learner = self._learner = self._learner or self._load()
        tokens = Tokens(learner.tokenizer)
        prompts = [as_tokens(tokens, messages, chat=None) for messages in conversations]
        positions = learner.max_positions
        longest = max(map(len, prompts), default=0)
        if positions is not None and longest >= positions:
            raise UserError(
                f"judge: a comparison takes {longest} tokens, and the model {self.name!r} has positions for "
                f"{positions}; use another judge, or a smaller max_new_tokens."
            )
        for first in range(0, len(prompts), 64):  # so that a kill loses no more
            some = prompts[first : first + 64]
            yield from enumerate(learner.generate(some, LOCAL_REPLY), start=first)

    def _load(self) -> Learner:
        import torch

        from forgetmenot.engine.learner import Learner
        from forgetmenot.engine.pack import node_budget
        from forgetmenot.models.load import load_model

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        loaded = load_model(self._settings, trainable=False, device=device)
        budget = node_budget(device.type, "sdpa", torch.get_num_threads())
        return Learner(loaded.model, loaded.tokenizer, budget)


def as_tokens(tokens: Tokens, messages: Messages, *, chat: bool | None) -> Ids:
    """A conversation up to where the assistant answers.

    Args:
        tokens: Of the model that answers.
        messages: The turns.
        chat: Whether they are put in the model's chat template; None if it has one. Else the turns' texts
            stand below one another, and the answer follows after a blank line where there are several.
    """
    if tokens.has_chat_template if chat is None else chat:
        return tokens.chat([tokens.conversation(messages, reply=True)])[0]
    texts = [turn["content"] for turn in messages]
    return tokens.plain(["\n\n".join(texts) + ("\n\n" if len(texts) > 1 else "")])[0]
