"""The engine: tokens → trie → forward pass → loss, candidate scores, text; the training loop.

It knows nothing of tasks: it gets token sequences and gives back numbers.
"""

from forgetmenot.engine import ranks, shards
from forgetmenot.engine.decoding import Answer, Decoding
from forgetmenot.engine.flex import Attention, attention_of, choose_attention, use_attention
from forgetmenot.engine.guard import Verdict, choose_layout, why_no_prefix
from forgetmenot.engine.learner import Learner, Snapshot, evaluating
from forgetmenot.engine.pack import NODE_BUDGET, Arrangement, Layout
from forgetmenot.engine.precision import Precision, choose_precision, rounded_once
from forgetmenot.engine.training import Step, TrainingSettings, auto_learning_rate, fit
from forgetmenot.engine.vllm_backend import check_vllm

__all__ = [
    "NODE_BUDGET",
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
    "check_vllm",
    "choose_attention",
    "choose_layout",
    "choose_precision",
    "evaluating",
    "fit",
    "ranks",
    "rounded_once",
    "shards",
    "use_attention",
    "why_no_prefix",
]
