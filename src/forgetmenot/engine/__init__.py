"""The engine: tokens → trie → forward pass → loss, candidate scores, text; the training loop.

It knows nothing of tasks: it gets token sequences and gives back numbers.
"""

from forgetmenot.engine.guard import Verdict, choose_layout
from forgetmenot.engine.learner import Learner, Snapshot, evaluating
from forgetmenot.engine.pack import NODE_BUDGET, Layout
from forgetmenot.engine.precision import Precision, choose_precision
from forgetmenot.engine.training import Step, TrainingSettings, auto_learning_rate, fit

__all__ = [
    "NODE_BUDGET",
    "Layout",
    "Learner",
    "Precision",
    "Snapshot",
    "Step",
    "TrainingSettings",
    "Verdict",
    "auto_learning_rate",
    "choose_layout",
    "choose_precision",
    "evaluating",
    "fit",
]
