"""Tasks of a run that have no stage of their own: a method uses their examples besides."""

from collections.abc import Sequence

from forgetmenot.errors import UserError, nearest


def learned_tasks(tasks: Sequence[str], sources: Sequence[str]) -> list[str]:
    """The tasks of a run that are no sources, in order.

    Raises:
        UserError: If a source is no task of the run, or nothing else is.
    """
    for source in sources:
        if source not in tasks:
            raise UserError(
                f"method.sources: {source!r} is no task of this run that has a train split; "
                f"add it to `tasks`. {nearest(source, tasks)}"
            )
    learned = [task for task in tasks if task not in sources]
    if not learned:
        raise UserError("method.sources: every task is a source, so none is trained on; leave one out.")
    return learned
