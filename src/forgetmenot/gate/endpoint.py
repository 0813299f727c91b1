"""A model behind an OpenAI-compatible endpoint: its name, what it can be asked, and its answers to texts.

It tokenizes by itself, so that it is asked by text: what it writes after a prompt (`/completions`) or in a
conversation (`/chat/completions`), and, where it echoes a prompt's log-probabilities, how likely a text is.
vLLM does; llama.cpp's server refuses to echo, and Ollama knows no such request. So each is asked once with a
short prompt, and believed only where it gives an entry for each token of it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import httpx2

from forgetmenot.engine.decoding import Decoding
from forgetmenot.errors import UserError, masked, nearest
from forgetmenot.prompting.texts import Text
from forgetmenot.synthesis.endpoint import Endpoint, EndpointSettings, RefusedError, bare_address

KEY = "OPENAI_API_KEY"
CONCURRENCY = 8
TIMEOUT = (
    300.0  # seconds; a request waits in the server's queue, and no byte comes before its answer is whole
)
MOST_STOPS = 4  # that the protocol allows; an answer is cut at all of them here
THEN = "See that the server runs, and at this address; for most servers it ends in /v1."
PROBE = "One, two, three, four"

PLAIN = {
    "repetition_penalty": 1.0
}  # vLLM takes what a checkpoint's generation config has, where none is sent
IN_CHAT = {**PLAIN, "chat_template_kwargs": {"enable_thinking": False}}  # as local sides are asked
BY_ID = {"return_tokens_as_token_ids": True}  # vLLM: two tokens may have the same text

Item = TypeVar("Item")
Read = TypeVar("Read")


@dataclass(frozen=True)
class Likelihoods:
    """A text's tokens, as a server's tokenizer divides it, and their log-likelihoods.

    Attributes:
        tokens: Their names or texts.
        values: In nats, each given all tokens before it; None for the first, before which there is none.
    """

    tokens: Sequence[str]
    values: Sequence[float | None]


class Server:
    """One model at an endpoint."""

    def __init__(self, given: str) -> None:
        """Find the model.

        Args:
            given: The endpoint's URL, with #NAME where it serves several models.

        Raises:
            UserError: The URL is none or holds a secret, nobody answers there, or there is no such model.
        """
        self.url, _, name = given.partition("#")
        self._settings = _settings(self.url.rstrip("/"))
        self._quick = self._endpoint(retries=1)
        listed = self._models(name)
        self._entry = self._chosen(name, listed)
        self._settings = self._settings.model_copy(update={"model": self._entry["id"]})
        self._quick, self._patient = self._endpoint(retries=1), self._endpoint()
        self._fingerprint: str | None = None

    @property
    def name(self) -> str:
        """What the model is called there."""
        return self._settings.model

    @property
    def served(self) -> dict[str, Any]:
        """What the server says of itself and the model, as far as it does."""
        return {"url": self.url, "model": self.name, **self._entry, "system_fingerprint": self._fingerprint}

    @property
    def weights(self) -> str:
        """What stands in place of the weights' hash, which nobody knows: what the server says of them.

        The time is left out: some give that of the request.
        """
        said = json.dumps({**self.served, "created": None}, sort_keys=True)
        digest = hashlib.sha256(said.encode()).hexdigest()[:16]
        return f"unknown: whatever {self.url}#{self.name} serves (it says {digest} of itself)"

    @property
    def is_ollama(self) -> bool:
        """Whether it is Ollama, which writes a prompt for `/completions` into the model's template too."""
        return self._fingerprint == "fp_ollama"

    def reach(self, *, chat: bool) -> None:
        """See that it can be asked, in a chat or by text.

        Raises:
            UserError: It cannot.
        """
        _ = self.chat_options if chat else self.options

    @cached_property
    def options(self) -> Mapping[str, Any]:
        """Further keys that `/completions` takes."""
        body = {"prompt": PROBE, "max_tokens": 1}
        return self._taken("/completions", body, PLAIN, _written, "ask by --chat if it answers chats alone")

    @cached_property
    def chat_options(self) -> Mapping[str, Any]:
        """The same of `/chat/completions`."""
        body = {"messages": [{"role": "user", "content": PROBE}], "max_tokens": 1}
        return self._taken("/chat/completions", body, IN_CHAT, _anything, "ask without --chat")

    @cached_property
    def echoes(self) -> bool:
        """Whether it gives a prompt's log-probabilities, for each of its tokens."""
        try:
            (row,) = self._quick.request("/completions", self._echo([PROBE]), _echoed(1))
        except UserError:
            return False
        return len(row.tokens) > 2

    def likelihoods(
        self, texts: Sequence[Sequence[str]], advance: Callable[[int], None]
    ) -> list[list[Likelihoods]]:
        """The log-likelihoods of texts, in groups that are sent together.

        Args:
            texts: In groups, none of them empty.
            advance: Told how many groups are done.
        """

        def ask(group: Sequence[str]) -> list[Likelihoods]:
            return self._patient.request("/completions", self._echo(group), _echoed(len(group)))

        return self._each(ask, texts, advance)

    def write(self, texts: Sequence[Text], decoding: Decoding, advance: Callable[[int], None]) -> list[str]:
        """What the model writes after each prompt, or in each conversation, greedily.

        Args:
            texts: What is put.
            decoding: How long answers are, and what ends them.
            advance: Told how many are done.
        """
        how = {
            **self._named,
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "stop": list(decoding.stop[:MOST_STOPS]) or None,
            **(self.chat_options if texts[0].turns else self.options),
        }

        def ask(text: Text) -> str:
            if text.turns:
                body = {**how, "messages": list(text.turns)}
                return self._patient.request("/chat/completions", body, self._said)
            return self._patient.request("/completions", {**how, "prompt": text.prompt}, _written)

        return [_before(decoding.stop, answer) for answer in self._each(ask, texts, advance)]

    def one_at_a_time(self) -> "Server":
        """The same, sending the next request only when the last one is answered."""
        alone = copy(self)
        alone._patient = self._endpoint(concurrency=1)
        return alone

    @property
    def _named(self) -> dict[str, Any]:
        return {"model": self.name}

    def _echo(self, texts: Sequence[str]) -> dict[str, Any]:
        """A request for prompts with their log-probabilities.

        One token is written, and left out: not every server takes 0.
        """
        how = {"echo": True, "max_tokens": 1, "logprobs": 1, "temperature": 0.0}
        return {**self._named, "prompt": list(texts), **how, **self.options, **BY_ID}

    def _each(
        self, ask: Callable[[Item], Read], items: Sequence[Item], advance: Callable[[int], None]
    ) -> list[Read]:
        found: dict[int, Read] = {}
        for place, answer in self._patient.each(ask, items):
            found[place] = answer
            advance(1)
        return [found[k] for k in range(len(items))]

    def _said(self, answer: Any) -> str:
        """The text of a chat's answer.

        Raises:
            UserError: It thought, and had no tokens left to answer.
        """
        message = answer["choices"][0]["message"]
        content = message["content"] or ""
        if not isinstance(content, str):
            raise TypeError("it is not text")
        if not content and (message.get("reasoning_content") or message.get("reasoning")):
            raise UserError(
                f"check: {self.name} at {self.url} thinks before it answers, and its tokens are spent before "
                "an answer comes; serve it with thinking switched off."
            )
        return content

    def _taken(
        self,
        path: str,
        body: Mapping[str, Any],
        options: Mapping[str, Any],
        read: Callable[[Any], Any],
        otherwise: str,
    ) -> Mapping[str, Any]:
        """Of the further keys those that the server takes: all, or none."""

        def answered(answer: Any) -> None:
            read(answer)
            self._fingerprint = answer.get("system_fingerprint") or self._fingerprint

        asked = {**self._named, **body, "temperature": 0.0}
        for further in (options, {}):
            try:
                self._quick.request(path, {**asked, **further}, answered)
            except RefusedError as error:
                if not further or error.status in (401, 403):
                    said = f"{error} It cannot be asked by {path}; {otherwise}."
                    raise UserError(said if error.status not in (401, 403) else _with_key(error)) from error
            else:
                return further
        raise AssertionError("the last attempt returns or raises")

    def _models(self, name: str) -> list[dict[str, Any]]:
        """What it serves; just the name that was given where it does not say."""
        try:
            return self._quick.request("/models", None, _listed)
        except RefusedError as error:
            if error.status in (401, 403):
                raise UserError(_with_key(error)) from error
            if name and error.status in (404, 405, 501):
                return [{"id": name}]
            raise UserError(f"{error} {THEN} Where it lists no models, write URL#NAME.") from error

    def _chosen(self, name: str, listed: Sequence[dict[str, Any]]) -> dict[str, Any]:
        known = [one["id"] for one in listed]
        if not known:
            raise UserError(f"check: {self.url} serves no model; load one there.")
        if not name and len(known) > 1:
            shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
            raise UserError(
                f"check: {self.url} serves {len(known)} models; name one as {self.url}#NAME: {shown}."
            )
        if name and name not in known:
            raise UserError(f"check: {self.url} serves no model {name!r}. {nearest(name, known)}")
        return listed[known.index(name) if name else 0]

    def _endpoint(self, **changes: Any) -> Endpoint:
        return Endpoint(self._settings.model_copy(update=changes), first_wait=FIRST_WAIT, then=THEN)


FIRST_WAIT = 0.5
"""Seconds before a request is sent a second time; they double with each further one."""


def agreement(rows: Sequence[Likelihoods]) -> int:
    """How many tokens texts have in common at their beginning.

    A token whose text does not tell which one it is, part of a letter, is the same where it is as likely.
    """
    for place, tokens in enumerate(zip(*(row.tokens for row in rows), strict=False)):
        if len(set(tokens)) > 1:
            return place
        if not tokens[0] or "\ufffd" in tokens[0]:
            values = [row.values[place] or 0.0 for row in rows]
            if max(values) - min(values) > 0.01:
                return place
    return min(len(row.tokens) for row in rows)


def _settings(url: str) -> EndpointSettings:
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError) as error:
        raise UserError(f"check: {masked(repr(url))} is no address of an endpoint.") from error
    if parsed.userinfo or parsed.query:  # not repeated here: it may be a secret
        raise UserError(
            f"check: the address of the endpoint at {parsed.host} holds a user, a password or a query; leave "
            f"it out, and put the key into the environment variable {KEY}."
        )
    try:
        bare_address(url)
    except ValueError as error:
        raise UserError(f"check: {masked(repr(url))} is no address of an endpoint: {error}.") from error
    return EndpointSettings(
        base_url=url,
        model="?",
        api_key_env=KEY if os.environ.get(KEY, "").strip() else None,
        timeout=TIMEOUT,
        concurrency=CONCURRENCY,
    ).model_copy(update={"model": ""})  # not known yet


def _with_key(error: RefusedError) -> str:
    return f"{error} Put its key into the environment variable {KEY}."


def _listed(answer: Any) -> list[dict[str, Any]]:
    """What is said of each model; of vLLM's without a permission that is new with each request."""
    return [
        {key: value for key, value in one.items() if key != "permission"} | {"id": str(one["id"])}
        for one in answer["data"] or ()
    ]


def _written(answer: Any) -> str:
    text = answer["choices"][0]["text"]
    if not isinstance(text, str):
        raise TypeError("it is not text")
    return text


def _before(ends: Sequence[str], text: str) -> str:
    """A text up to the first of the strings that end it."""
    return text[: min((at for end in ends if (at := text.find(end)) >= 0), default=None)]


def _anything(answer: Any) -> None:
    """See that it is an answer to a chat; whatever it says."""
    answer["choices"][0]["message"]["content"]


def _echoed(count: int) -> Callable[[Any], list[Likelihoods]]:
    """What reads the log-probabilities of so many prompts; the token written behind each is left out."""

    def read(answer: Any) -> list[Likelihoods]:
        choices = sorted(answer["choices"], key=lambda one: one["index"])
        rows = [one["logprobs"] for one in choices]
        entries = sum(len(row["tokens"]) for row in rows)
        if len(rows) != count or entries != answer["usage"]["prompt_tokens"] + count:
            raise ValueError("it has not one entry for each token")
        found = [Likelihoods(row["tokens"][:-1], row["token_logprobs"][:-1]) for row in rows]
        for one in found:
            if len(one.tokens) != len(one.values) or not all(
                isinstance(v, float | int) for v in one.values[1:]
            ):
                raise ValueError("it has not one number for each token")
        return found

    return read
