"""All tasks at once: the upper bound of what one model can hold (multi-task learning)."""

from collections.abc import Sequence

from forgetmenot.methods.shared.method import Method, Stage


class Joint(Method):
    """Train on all tasks at once, in one stage: the upper bound.

    The loss is a mean over answer tokens, so that tasks with long answers weigh more than those with short
    ones, and it need not be a bound for these.
    """

    past_data = True

    def stages(self, tasks: Sequence[str]) -> list[Stage]:
        """One stage over every task."""
        return [Stage(1, tuple(tasks), label="joint")]
