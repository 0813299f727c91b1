"""Training objectives: the likelihood of answers, or the preference of one answer over another."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from forgetmenot.engine.head import Read, picked
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.prompting import EncodedExamples
from forgetmenot.prompting.encoded import Encoded


def batch_loss(learner: Learner, batch: Sequence[Encoded]) -> Tensor:
    """The loss of examples of one kind, each times its weight, summed over answer tokens or preferences."""
    if batch[0].is_preference:
        return preference_loss(learner, batch)
    return -(learner.forward([example.answer for example in batch]) * weights(learner, batch)).sum()


def token_weighted_loss(
    learner: Learner, batch: Sequence[Encoded], weigh: Callable[[Tensor], Tensor], read: Read = picked
) -> Tensor:
    """−Σ w · log p over answer tokens, each example's terms times its weight too; w has no gradient.

    With w = 1 it is `batch_loss`, to the bit.

    Args:
        learner: The model that learns.
        batch: Examples with answers, not preferences.
        weigh: From what is read of each answer token, example after example [predicted, …], to w [predicted].
        read: What is read; its log-probability alone, or with others behind it.
    """
    found = learner.forward_tokens([example.answer for example in batch], read)
    with torch.no_grad():
        counted = weigh(found)
    log_probs = found if found.dim() == 1 else found[:, 0]
    terms = torch.tensor([count(example) for example in batch], device=learner.device)
    owners = torch.arange(len(batch), device=learner.device).repeat_interleave(terms)
    sums = torch.zeros(len(batch), device=learner.device).index_add(0, owners, log_probs * counted)
    return -(sums * weights(learner, batch)).sum()


def weights(learner: Learner, batch: Sequence[Encoded]) -> Tensor:
    """What each example's terms count in the loss, fp32 [examples]: a sum over these is what a method gives.

    1 where the loss is the mean over tokens. Where it is the mean over examples, each the mean over its own
    tokens, one over their number.
    """
    averaged = learner.loss_average == "example"
    return torch.tensor([1 / count(one) if averaged else 1.0 for one in batch], device=learner.device)


def divisor(learner: Learner, batch: Sequence[Encoded]) -> int:
    """What the engine divides a batch's weighted sum by, over all packs and processes."""
    return len(batch) if learner.loss_average == "example" else sum(map(count, batch))


def preference_loss(learner: Learner, batch: Sequence[Encoded]) -> Tensor:
    """Direct preference optimization, summed over pairs.

    DPO (Rafailov et al. 2023, arXiv 2305.18290), equation 7: −log σ(β [log π(y_w|x)/π_ref(y_w|x) −
    log π(y_l|x)/π_ref(y_l|x)]), with y_w the chosen and y_l the rejected answer, their end included, β the
    learner's `dpo_beta`, and π_ref the weights with which the stage began. Both answers share their prompt
    in the trie.
    """
    flat = learner.forward([candidate for example in batch for candidate in example.candidates])
    reference = flat.new_tensor([example.reference for example in batch])
    ratios = flat.view(len(batch), 2) - reference
    return -F.logsigmoid(learner.dpo_beta * (ratios[:, 0] - ratios[:, 1])).sum()


def count(example: Encoded) -> int:
    """How many terms an example adds to the loss: its answer's tokens; a preference is one."""
    return 1 if example.is_preference else len(example.answer.tokens) - example.answer.start


def with_reference(learner: Learner, examples: Sequence[Encoded]) -> Sequence[Encoded]:
    """Preferences with the log-likelihoods that they have now; other examples as they are.

    Raises:
        UserError: If there are both: a mean over tokens and one over pairs have no common unit.
    """
    # Those of one task are of one kind, and are only made when asked for.
    some = examples[:1] if isinstance(examples, EncodedExamples) else examples
    kinds = {example.is_preference for example in some}
    if len(kinds) > 1:
        raise UserError(
            "A stage cannot train on preferences and on answers together: their losses have no common unit."
        )
    if True not in kinds:
        return examples
    flat = learner.log_likelihoods([candidate for example in examples for candidate in example.candidates])
    pairs = flat.view(-1, 2).tolist()
    return [replace(one, reference=(a, b)) for one, (a, b) in zip(examples, pairs, strict=True)]
