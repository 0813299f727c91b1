"""The log of what was drawn: a synthesis that was killed reads it and draws nothing again."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forgetmenot.engine.decoding import Decoding
from forgetmenot.record.files import append_line, read_lines
from forgetmenot.synthesis.subject import Request
from forgetmenot.synthesis.writer import Drawn


class DrawLog:
    """Keeps each batch of texts under a digest of all that it follows from.

    Attributes:
        now: How many texts were drawn since it was read.
        before: How many were found drawn.
    """

    def __init__(
        self,
        path: Path | None = None,
        drawn_by: str = "",
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        """Read what was drawn before.

        Args:
            path: A file of JSON lines; None keeps nothing.
            drawn_by: What tells the model from others.
            say: Takes sentences about damaged lines, which are drawn again.
        """
        self._path, self._drawn_by = path, drawn_by
        self.now = self.before = 0
        said: list[str] = []
        lines = read_lines(path, _read, said) if path is not None else []
        for sentence in said:
            say(sentence)
        self._drawn = dict(lines)

    def drawn(
        self,
        requests: Sequence[Request],
        decoding: Decoding,
        seeds: Sequence[int],
        draw: Callable[[], list[Drawn]],
        *,
        weighed: bool = False,
    ) -> list[Drawn]:
        """What was drawn for these requests, by these seeds; drawn now if it was not before.

        Args:
            requests: What to go on from.
            decoding: How.
            seeds: One for each.
            draw: Draws them.
            weighed: Whether they have their log-likelihoods: texts without do not stand for texts with them.
        """
        asked = repr(
            (self._drawn_by, decoding, list(seeds), [(list(one.messages), one.chat) for one in requests])
        )
        digest = hashlib.sha256(asked.encode()).hexdigest()[:16]
        found = self._drawn.get(digest)
        lacks_weights = weighed and any(one.log_likelihood is None for one in found or [])
        if found is None or len(found) != len(requests) or lacks_weights:
            found = draw()
            self.now += len(found)
            if self._path is not None:
                append_line(self._path, [digest, [list(one) for one in found]], checked=True)
        else:
            self.before += len(found)
        return found


def _read(content: Any) -> tuple[str, list[Drawn]]:
    digest, found = content
    return str(digest), [Drawn(str(text), value) for text, value in found]
