"""The engine: tokens → trie → forward pass → loss, candidate scores, text; the training loop.

It knows nothing of tasks: it gets token sequences and gives back numbers.
"""

from forgetmenot.engine.guard import Verdict, choose_layout, why_no_prefix
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import NODE_BUDGET, Arrangement, Layout
from forgetmenot.engine.precision import Precision, choose_precision, rounded_once
from forgetmenot.engine.training import Step, TrainingSettings, auto_learning_rate, fit

__all__ = [
    "NODE_BUDGET",
    "Arrangement",
    "Layout",
    "Learner",
    "Precision",
    "Step",
    "TrainingSettings",
    "Verdict",
    "auto_learning_rate",
    "choose_layout",
    "choose_precision",
    "fit",
    "rounded_once",
    "why_no_prefix",
]
