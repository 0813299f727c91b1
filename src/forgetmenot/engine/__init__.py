"""The engine: tokens → trie → forward pass → loss, candidate scores, text; the training loop.

It knows nothing of tasks: it gets token sequences and gives back numbers.
"""

from forgetmenot.engine import ranks, shards
from forgetmenot.engine.attention import Attention, attention_of, choose_attention, use_attention
from forgetmenot.engine.decoding import Answer, Decoding
from forgetmenot.engine.guard import Verdict, choose_layout, why_no_prefix
from forgetmenot.engine.learner import Learner, Snapshot, evaluating
from forgetmenot.engine.objectives import batch_loss, preference_loss
from forgetmenot.engine.pack import Arrangement, Layout, node_budget
from forgetmenot.engine.precision import Precision, choose_precision, rounded_once
from forgetmenot.engine.training import (
    Step,
    TrainingSettings,
    auto_learning_rate,
    draw_batches,
    fit,
    training_positions,
)
from forgetmenot.engine.vllm_backend import check_vllm

__all__ = [
    "Answer",
    "Arrangement",
    "Attention",
    "Decoding",
    "Layout",
    "Learner",
    "Precision",
    "Snapshot",
    "Step",
    "TrainingSettings",
    "Verdict",
    "attention_of",
    "auto_learning_rate",
    "batch_loss",
    "check_vllm",
    "choose_attention",
    "choose_layout",
    "choose_precision",
    "draw_batches",
    "evaluating",
    "fit",
    "node_budget",
    "preference_loss",
    "ranks",
    "rounded_once",
    "shards",
    "training_positions",
    "use_attention",
    "why_no_prefix",
]
