"""A model behind an OpenAI-compatible endpoint: a judge, a teacher, or a side of a check."""

import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, TypeVar

import httpx2
from pydantic import ConfigDict, Field, field_validator

from forgetmenot.errors import UserError
from forgetmenot.settings import PositiveFloat, PositiveInt, Settings

Messages = Sequence[Mapping[str, str]]
"""A conversation: turns, each with `role` and `content`."""

PASSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""The statuses of an endpoint that may answer a second request."""

Item = TypeVar("Item")
Read = TypeVar("Read")

LONGEST_TEXT = 1_000_000
"""The most letters of an answer's text."""

LONGEST_ANSWER = 256 * 2**20
"""The most bytes of an answer, in which log-probabilities may stand for each of many tokens."""

LONGEST_REPLY = 16 * 2**20
"""The most bytes of an answer that is a text."""

TIMES_OUT = 5
"""An answer that comes byte by byte may take so many times the time-out in all."""

LONGEST_WAIT = 120.0
"""The most seconds between two attempts; an endpoint that asks for more makes the user come back later."""


class EndpointSettings(Settings):
    """The address of the other model, and the settings of requests."""

    model_config = ConfigDict(hide_input_in_errors=True)

    base_url: Annotated[str, Field(min_length=1)]
    """Up to the version, without `/chat/completions`: "http://localhost:8000/v1"."""
    model: Annotated[str, Field(min_length=1)]
    """Its name there."""
    api_key_env: str | None = None
    """The environment variable that holds the key; the key itself is written nowhere."""
    timeout: PositiveFloat = 120.0
    """Seconds without a byte after which an attempt has failed."""
    retries: Annotated[int, Field(ge=0)] = 5
    """How often a request is sent again after a time-out, a rate limit, a server's error or an answer that is
    none."""
    concurrency: PositiveInt = 4
    """How many requests are under way at a time."""
    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    """Null leaves it to the endpoint."""
    max_tokens: PositiveInt | None = 1024
    """The most tokens of an answer; null leaves it to the endpoint."""

    @field_validator("base_url")
    @classmethod
    def _is_a_bare_address(cls, value: str) -> str:
        return bare_address(value)

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise ValueError("it is not the name of a variable; put the key into one, and its name here")
        return value


def bare_address(value: str) -> str:
    """An address of an endpoint that holds nothing but where it is.

    Raises:
        ValueError: It is none, or holds what may be a secret; the text repeats nothing of it.
    """
    none = "it is not an address such as http://localhost:8000/v1"
    if not value.isprintable() or " " in value:
        raise ValueError(f"{none}: it holds a blank or a line break")
    try:
        url = httpx2.URL(value)
        port = url.port
    except (httpx2.InvalidURL, ValueError):
        raise ValueError(none) from None
    if url.scheme not in ("http", "https") or not url.host or (port is not None and not 0 < port < 2**16):
        raise ValueError(none)
    if url.userinfo or "?" in value or "#" in value:
        raise ValueError(
            "it holds a secret, a query or a fragment; put the key into the variable of api_key_env"
        )
    return value.rstrip("/")


class RefusedError(UserError):
    """The endpoint refuses a request, and would refuse it again.

    Attributes:
        status: The status of its answer.
    """

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


class Endpoint:
    """Asks the other model; several threads may share it."""

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        first_wait: float = 1.0,
        then: str = "What was answered before is kept: try later.",
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            settings: Where and how.
            first_wait: Seconds before the second attempt; they double with each further one.
            then: What the user can do where there is no answer after all retries, as a sentence.

        Raises:
            UserError: If the key's environment variable is not set.
        """
        self.settings, self._first_wait, self._then = settings, first_wait, then
        self._key = _key(settings.api_key_env)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx2.Client(headers=headers, timeout=settings.timeout)
        self._jitter = random.Random()  # its own: waiting must not shift what else is drawn
        self._stopped = threading.Event()

    @property
    def name(self) -> str:
        """What the model is called there."""
        return self.settings.model

    def complete(self, messages: Messages, **options: Any) -> str:
        """The text that the model answers to a conversation; empty where it refuses to give any.

        Args:
            messages: The turns so far.
            options: Further keys of the request, or other values: temperature=1.0, seed=3.

        Raises:
            UserError: If the endpoint cannot be reached, refuses the request, or still has no answer after
                all retries.
        """
        body = {
            "model": self.settings.model,
            "messages": [dict(turn) for turn in messages],
            "temperature": self.settings.temperature,
            "max_tokens": self.settings.max_tokens,
            **options,
        }
        return self.request("/chat/completions", body, _content, LONGEST_REPLY)

    def request(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Any], Read],
        most: int = LONGEST_ANSWER,
    ) -> Read:
        """What is read off the answer to one request.

        Args:
            path: Behind the base URL, such as "/completions".
            body: Its keys, of which those that are None are left out; None for a request that only fetches.
            read: Takes the answer as plain data; a ValueError, LookupError or TypeError says that it is none.
            most: The most bytes of the answer.

        Raises:
            RefusedError: If the endpoint refuses the request.
            UserError: If it cannot be reached, or still has no answer after all retries.
        """
        if body is not None:
            body = {key: value for key, value in body.items() if value is not None}
        for attempt in range(self.settings.retries + 1):
            try:
                return self._attempt(path, body, read, most)
            except _Again as failure:
                problem = failure
            last = attempt == self.settings.retries
            if last or self._stopped.wait(self._pause(attempt, problem)):
                break
        raise UserError(self._sentence(f"{problem}, {_times(attempt + 1)}. {self._then}"))

    def complete_all(self, conversations: Sequence[Messages], **options: Any) -> Iterator[tuple[int, str]]:
        """Each conversation's number and answer, as they come; see `each`."""
        return self.each(lambda messages: self.complete(messages, **options), conversations)

    def each(self, ask: Callable[[Item], Read], items: Sequence[Item]) -> Iterator[tuple[int, Read]]:
        """Each item's number and what was asked about it, as it comes; at most `concurrency` are under way.

        What is under way when one fails is still given before its error is raised, so that a caller who
        keeps each answer asks nothing twice.

        Raises:
            UserError: As `complete`.
        """
        self._stopped.clear()
        pool = ThreadPoolExecutor(self.settings.concurrency)
        failure: BaseException | None = None
        try:
            futures = {pool.submit(ask, item): k for k, item in enumerate(items)}
            for future in as_completed(futures):
                if future.cancelled():
                    continue
                if error := future.exception():
                    failure = failure or error
                    self._stopped.set()
                    for other in futures:
                        other.cancel()
                else:
                    yield futures[future], future.result()
        finally:
            self._stopped.set()
            pool.shutdown(cancel_futures=True)
            self._stopped.clear()
        if failure is not None:
            raise failure

    def _attempt(
        self, path: str, body: Mapping[str, Any] | None, read: Callable[[Any], Read], most: int
    ) -> Read:
        """Send a request once."""
        try:
            response = self._sent(f"{self.settings.base_url}{path}", body, most)
        except httpx2.TimeoutException as error:
            raise _Again(f"did not answer within {self.settings.timeout:g} s") from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise _Again(f"cannot be reached ({str(error) or type(error).__name__})") from error
        if response.status_code in PASSES:
            said = f"answered with status {response.status_code}{self._said(response)}"
            raise _Again(said, _retry_after(response))
        if not response.is_success:
            said = f"refuses with status {response.status_code}{self._said(response)}."
            raise RefusedError(self._sentence(said), response.status_code)
        try:
            return read(_whole_letters(response.json()) if b"\\u" in response.content else response.json())
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            if response.text.lstrip().startswith("<"):
                raise _Again("gave a web page, not JSON") from error
            raise _Again("gave an answer that does not follow the protocol") from error

    def _sent(self, url: str, body: Mapping[str, Any] | None, most: int) -> httpx2.Response:
        """The answer, read as far as it may be long.

        Raises:
            UserError: If it is longer.
        """
        method = "GET" if body is None else "POST"
        longest = TIMES_OUT * self.settings.timeout
        until = time.monotonic() + longest
        found, size = list[bytes](), 0
        with self._client.stream(method, url, json=body) as answer:
            for part in answer.iter_bytes():
                found.append(part)
                size += len(part)
                if size > most:
                    raise UserError(self._sentence(f"gives an answer of more than {most:,} bytes."))
                if time.monotonic() > until:
                    raise _Again(f"did not end its answer within {longest:g} s")
            kept = {name: answer.headers[name] for name in ("Retry-After",) if name in answer.headers}
            return httpx2.Response(answer.status_code, headers=kept, content=b"".join(found))

    def _pause(self, attempt: int, problem: "_Again") -> float:
        """Seconds to wait: what the endpoint asks for, or a time that doubles, with some chance in it."""
        if problem.wait is None:
            doubled = self._first_wait * 2.0**attempt
            return min(LONGEST_WAIT, doubled * self._jitter.uniform(0.75, 1.25))
        if problem.wait > LONGEST_WAIT:
            said = f"{problem} and asks to wait {problem.wait:.0f} s; try again after that."
            raise UserError(self._sentence(said))
        return problem.wait

    def _said(self, response: httpx2.Response) -> str:
        """What the endpoint says of its refusal, without the key, which some repeat."""
        try:
            error = response.json()["error"]
            said = str(error["message"] if isinstance(error, dict) else error)
        except (ValueError, LookupError, TypeError):
            said = response.text
        if said.lstrip().startswith("<"):
            said = "a web page"
        said = " ".join(said.split())
        if self._key:
            said = said.replace(self._key, "…")
        return f" ({said[:200].rstrip('.')})" if said else ""

    def _sentence(self, what: str) -> str:
        model = f" (model {self.settings.model!r})" if self.settings.model else ""
        return f"The endpoint {self.settings.base_url}{model} {what}"


class _Again(Exception):  # noqa: N818 (no error as long as there are attempts)
    """This attempt failed, and another may not.

    Attributes:
        wait: The seconds that the endpoint asks to wait, if it does.
    """

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


def _content(answer: Any) -> str:
    """The text of a chat's answer."""
    content = answer["choices"][0]["message"]["content"]
    if content is None:
        return ""
    if not isinstance(content, str):
        raise TypeError("it is not text")
    if len(content) > LONGEST_TEXT:
        raise ValueError(f"it has more than {LONGEST_TEXT:,} letters")
    return content


def _whole_letters(value: Any) -> Any:
    """An answer in which no half of a character stands, which no file could hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_whole_letters(key): _whole_letters(one) for key, one in value.items()}
    return [_whole_letters(one) for one in value] if isinstance(value, list) else value


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"api_key_env: the environment variable {variable!r} is not set; put the key there.")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(f"api_key_env: what the environment variable {variable!r} holds is no key.")
    return key


def _retry_after(response: httpx2.Response) -> float | None:
    """The seconds of a Retry-After header, which is a number or a date (RFC 9110, 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _times(attempts: int) -> str:
    return "asked once" if attempts == 1 else f"asked {attempts} times"
