"""The numbers of a model with gradients, one forward pass at a time, and what follows from these."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from forgetmenot.engine import ranks, shards
from forgetmenot.engine.forward import hidden_states, log_likelihoods, predicted_tokens
from forgetmenot.engine.head import Read, picked
from forgetmenot.engine.laid_out import LaidOut, predicted_count
from forgetmenot.engine.pack import Pack
from forgetmenot.engine.precision import autocast
from forgetmenot.engine.predictions import Predictions, predictions
from forgetmenot.errors import UserError
from forgetmenot.prompting.encoded import Encoded, TokenSequence


class Gradients(LaidOut):
    """What training asks: it cuts (`cut`) what does not fit into one pass."""

    def forward(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Log-likelihood of each sequence's predicted tokens, with gradients: nats, fp32 [sequences].

        One forward pass: the caller cuts (`cut`) what does not fit.
        """
        with autocast(self.device, self.precision):
            return log_likelihoods(self.model, self._pack(sequences))

    def forward_tokens(self, sequences: Sequence[TokenSequence], read: Read = picked) -> Tensor:
        """Log-probability of each predicted token, with gradients: nats, fp32 [predicted].

        Sequence after sequence, in one forward pass: the caller cuts (`cut`) what does not fit. Another
        `read` gives more of each than this [predicted, …]; see `forgetmenot.engine.head.Read`.
        """
        with autocast(self.device, self.precision):
            return predicted_tokens(self.model, self._pack(sequences), read)

    def forward_in_packs(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """What `forward` gives, of as many sequences as one loss needs at once.

        They are cut, and where that makes several packs the backward pass computes each again, so that the
        activations of one are held at a time.
        """
        cut = self.cut(sequences)
        if len(cut) == 1:
            return self.forward(sequences)
        values = []
        for indices in cut:
            packed = self._pack([sequences[k] for k in indices])
            with autocast(self.device, self.precision):
                values.append(checkpoint(log_likelihoods, self.model, packed, use_reentrant=False))
        order = torch.tensor([k for indices in cut for k in indices], device=self.device)
        return torch.cat(values)[order.argsort()]

    def log_probs(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """The whole distribution at each predicted token, with gradients: nats, fp32 [predicted, vocabulary].

        Sequence after sequence, in one forward pass: the caller cuts (`cut`) what does not fit.
        """
        return self.predictions(sequences).log_probs()

    def predictions(
        self, sequences: Sequence[TokenSequence], weights: Mapping[str, Tensor] | None = None
    ) -> Predictions:
        """What whole distributions follow from, with gradients; see `forgetmenot.engine.predictions`.

        One forward pass: the caller cuts (`cut`) what does not fit. Within `with_weights` the same weights
        are given here: the head is asked later.
        """
        return predictions(self.model, self._pack(sequences), self.precision, weights)

    def sum_over_packs(
        self, sequences: Sequence[TokenSequence], part: Callable[[Predictions, Tensor], Tensor]
    ) -> Tensor:
        """The sum over packs of what `part` gives of their predictions, with gradients.

        They are cut as in `forward_in_packs`; several packs are computed again in the backward pass.

        Args:
            sequences: As many as one loss needs at once.
            part: Given a pack's predictions, and the rows of these among those of all sequences in order.
        """
        cut = self.cut(sequences)
        rows = torch.split(
            torch.arange(predicted_count(sequences)), [len(s.tokens) - s.start for s in sequences]
        )

        def found(packed: Pack, places: Tensor) -> Tensor:
            return part(predictions(self.model, packed, self.precision), places)

        parts = []
        for indices in cut:
            packed, places = (
                self._pack([sequences[k] for k in indices]),
                torch.cat([rows[k] for k in indices]),
            )
            if len(cut) == 1:
                return found(packed, places)
            parts.append(checkpoint(found, packed, places, use_reentrant=False))
        return torch.stack(parts).sum(0)

    def hidden_with_gradients(self, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        """What `hidden` gives of the last layer, with gradients: fp32 [prompts, width].

        One forward pass: the caller cuts (`cut`) what does not fit.
        """
        with autocast(self.device, self.precision):
            packed = self._pack([TokenSequence((*prompt, 0), len(prompt)) for prompt in prompts])
            return hidden_states(self.model, packed, -1)

    def gathered(self) -> dict[str, Tensor]:
        """What the step's backward passes left in `.grad`, by parameter that learns; to change in place."""
        return {name: p.grad for name, p in self.trainable().items() if p.grad is not None}

    def gradient_of(
        self, examples: Sequence[Encoded], weights: Sequence[float] | None = None
    ) -> dict[str, Tensor]:
        """Gradient of the summed negative log-likelihood of the examples' answers, by parameter that learns.

        What `.grad` holds stays as it is.

        Args:
            examples: With answers.
            weights: What each example's sum counts; 1 unless given.

        Raises:
            UserError: If the model is sharded: PyTorch sums its gradients into `.grad` alone.
        """
        if shards.is_sharded(self.model):
            raise UserError(
                "This method takes gradients of its own, which a sharded model does not give; "
                "launch without --use_fsdp."
            )
        answers = [example.answer for example in examples]
        counted = weights or [1.0] * len(answers)
        total = self.within_memory(lambda: self._gradient_of(answers, counted))
        return {name: ranks.all_reduce(gradient) for name, gradient in total.items()}

    def _gradient_of(self, answers: Sequence[TokenSequence], weights: Sequence[float]) -> dict[str, Tensor]:
        parameters = self.trainable()
        total = {name: torch.zeros_like(p) for name, p in parameters.items()}
        packs = self.cut(answers)
        for turn in self.turns([[answers[k] for k in indices] for indices in packs]):
            indices = packs[turn.pack]
            counted = torch.tensor([weights[k] for k in indices], device=self.device)
            loss = -(self.forward([answers[k] for k in indices]) * counted).sum()
            found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    total[name] += gradient
        return total
