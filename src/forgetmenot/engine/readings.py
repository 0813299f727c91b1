"""The numbers of a model without gradients, of as many sequences as are asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from forgetmenot.engine import ranks
from forgetmenot.engine.forward import (
    hidden_states,
    layer_inputs,
    layer_states,
    log_likelihoods,
    lower_states,
    predicted_tokens,
)
from forgetmenot.engine.head import KeptHead, head_alone, plain_head
from forgetmenot.engine.laid_out import Advance, LaidOut, evaluating, predicted_count
from forgetmenot.engine.lower import LowerStates
from forgetmenot.engine.pack import Arrangement, Pack
from forgetmenot.engine.precision import activation_dtype, autocast
from forgetmenot.engine.predictions import divergences, predictions
from forgetmenot.engine.prefix import compute_prefix
from forgetmenot.prompting.encoded import Encoded, TokenSequence


class Readings(LaidOut):
    """Log-likelihoods, states and divergences, over packs and processes."""

    def log_likelihoods(
        self, sequences: Sequence[TokenSequence] | Arrangement, advance: Advance | None = None
    ) -> Tensor:
        """Log-likelihood of each sequence's predicted tokens, without gradients: nats, fp64 [sequences]."""
        if isinstance(sequences, Arrangement):
            return self._scored(sequences, advance)
        return self.within_memory(lambda: self._scored(self.arrange(sequences), advance))

    def log_likelihoods_and_greedy(
        self, sequences: Sequence[TokenSequence], advance: Advance | None = None
    ) -> tuple[Tensor, Tensor]:
        """What `log_likelihoods` gives, and whether greedy decoding would write the predicted tokens."""
        values = self.within_memory(lambda: self._scored(self.arrange(sequences), advance, greedy=True))
        predicted = torch.tensor([len(s.tokens) - s.start for s in sequences], dtype=torch.float64)
        return values[:, 0], values[:, 1] == predicted

    def _scored(self, arranged: Arrangement, advance: Advance | None, *, greedy: bool = False) -> Tensor:
        """Log-likelihoods, with `greedy` as the first of two columns: see `forward.log_likelihoods`."""
        shape = (arranged.sequences, 2) if greedy else (arranged.sequences,)
        result = torch.zeros(shape, dtype=torch.float64)
        found = []
        with (
            self.keeps.parts(self.model, arranged, greedy=greedy) as kept,
            evaluating(self.model),
            self._computing(),
        ):
            prefix = None
            if arranged.prefix:
                prefix = compute_prefix(self.model, arranged.prefix, activation_dtype(self.model))
                self.counts["computed"] += len(arranged.prefix)
            # What is found is read last: the next pack is laid out while the device works. Not so on a CPU,
            # where small tensors kept between the passes' large ones stop malloc from using the room between
            # them again: the process grew by 400 KB with each pack.
            for turn in self._turns([packed.nodes for _, packed in arranged.packs]):
                indices, packed = arranged.packs[turn.pack]
                values = kept.done.get(turn.pack)
                if values is None:
                    cache = prefix.cache() if prefix is not None else None
                    values = log_likelihoods(self.model, packed, cache, greedy=greedy)
                    kept.add(turn.pack, values)
                self.counts["computed"] += packed.nodes
                if turn.counts and values.device.type == "cpu":
                    result[indices] = values.double()
                elif turn.counts:
                    found.append((indices, values))
                if advance is not None:
                    advance(sum(len(arranged.packs[k][0]) for k in turn.dealt))
        for indices, values in found:
            result[indices] = values.double().cpu()
        if ranks.writes():  # counts are summed over the processes
            self.counts["without_sharing"] += arranged.without_sharing
        return ranks.all_reduce(result)

    def token_log_likelihoods(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Log-probability of each predicted token, without gradients: nats, fp32 [predicted].

        Sequence after sequence.
        """
        result = torch.zeros(predicted_count(sequences))
        return self._for_each_predicted(
            sequences, result, lambda packed, _: predicted_tokens(self.model, packed)
        )

    def score(self, examples: Sequence[Encoded], advance: Advance | None = None) -> list[np.ndarray]:
        """Log-likelihood of each example's candidates, in nats: one array [candidates] for each example.

        The reading is lm-eval's `loglikelihood`: the sum over the answer's tokens, without EOS.
        """
        flat = [candidate for example in examples for candidate in example.candidates]
        values = self.log_likelihoods(flat, advance).numpy()
        bounds = np.cumsum([0] + [len(example.candidates) for example in examples])
        return [values[a:b] for a, b in pairwise(bounds.tolist())]

    def hidden(self, prompts: Sequence[tuple[int, ...]], layer: int = -1) -> Tensor:
        """The hidden state of each prompt's last token, without gradients: fp32 [prompts, width].

        Args:
            prompts: Token ids, none empty.
            layer: As Transformers counts: 0 is the embeddings, −1 what goes into the LM head.
        """
        # A state is found where something is predicted: any token does, and it is computed nowhere.
        return self.states([TokenSequence((*prompt, 0), len(prompt)) for prompt in prompts], layer)

    def layer_states(self, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        """The states of each prompt's last token in all layers: fp32 [prompts, layers + 2, width].

        Without gradients: the embeddings, what each layer gives, and what goes into the LM head.
        """
        sequences = [TokenSequence((*prompt, 0), len(prompt)) for prompt in prompts]
        text = self.model.config.get_text_config()
        result = torch.zeros(len(prompts), text.num_hidden_layers + 2, text.hidden_size)
        return self._for_each_predicted(sequences, result, lambda packed, _: layer_states(self.model, packed))

    def states(self, sequences: Sequence[TokenSequence], layer: int = -1) -> Tensor:
        """The hidden state that predicts each predicted token, without gradients: fp32 [predicted, width].

        Sequence after sequence; layers count as in `hidden`.
        """
        width = self.model.config.get_text_config().hidden_size
        if layer == -1:  # OPT-350M projects its last states to another width
            width = self.model.get_output_embeddings().weight.shape[-1]
        result = torch.zeros(predicted_count(sequences), width)
        return self._for_each_predicted(
            sequences, result, lambda packed, _: hidden_states(self.model, packed, layer)
        )

    @property
    def head_is_apart(self) -> bool:
        """Whether predictions follow from what `states` gives and the LM head alone.

        They do not in padded batches, nor where more than the head lies behind a model's decoder.
        """
        return self.layout in ("trie", "blocks") and head_alone(self.model)

    def head(self) -> KeptHead:
        """The LM head without what adapters add to it; it shares the model's own memory."""
        return plain_head(self.model)

    def divergences(self, sequences: Sequence[TokenSequence], states: Tensor, head: KeptHead) -> Tensor:
        """KL(another model ‖ this one) over the vocabulary at each predicted token: nats, fp64 [predicted].

        Without gradients, and for models whose head is apart (`head_is_apart`). No more than a bounded number
        of distributions is there at a time.

        Args:
            sequences: What is predicted.
            states: What `states` gave of the other model for the same sequences.
            head: The other model's.
        """

        def found(packed: Pack, rows: Tensor) -> Tensor:
            own = predictions(self.model, packed, self.precision)
            return divergences(states[rows].to(self.device), head, own)

        result = torch.zeros(len(states), dtype=torch.float64)
        return self._for_each_predicted(sequences, result, found)

    def _for_each_predicted(
        self, sequences: Sequence[TokenSequence], result: Tensor, find: Callable[[Pack, Tensor], Tensor]
    ) -> Tensor:
        """Fill a result [predicted, …], sequence after sequence, over packs and processes.

        Args:
            sequences: What is predicted.
            result: Zeros.
            find: From a pack, and the rows of its predicted tokens in the result, to the content of these.
        """
        rows = torch.split(torch.arange(len(result)), [len(s.tokens) - s.start for s in sequences])

        def fill() -> None:
            packs = self.cut(sequences)
            for turn in self.turns([[sequences[k] for k in indices] for indices in packs]):
                indices = packs[turn.pack]
                places = torch.cat([rows[k] for k in indices])
                found = find(self._pack([sequences[k] for k in indices]), places)
                if turn.counts:
                    result[places] = found.cpu()

        with evaluating(self.model), self._computing():
            self.within_memory(fill)
        return ranks.all_reduce(result)

    def layer_inputs(
        self,
        sequences: Sequence[TokenSequence],
        layers: Mapping[str, nn.Module],
        take: Callable[[str, Tensor, Tensor], None],
    ) -> None:
        """Show what layers get from sequences, without gradients; see `forgetmenot.engine.forward`."""
        with evaluating(self.model), autocast(self.device, self.precision):
            for indices in self.cut(sequences):
                layer_inputs(self.model, self._pack([sequences[k] for k in indices]), layers, take)

    @contextmanager
    def below(self, first: int) -> Iterator[Callable[[Pack], LowerStates]]:
        """What gives the states that enter layer `first`, of a pack on the trie: one pass up to there."""
        with evaluating(self.model), self._computing():
            yield lambda packed: lower_states(self.model, packed, first)
