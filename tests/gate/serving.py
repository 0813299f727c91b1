"""A model behind the protocol as vLLM, llama.cpp's server or Ollama speak it, computed by Transformers."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.endpoint import completion


class TinyModel:
    """Answers requests by a model; `Server.reply` may be one.

    Attributes:
        echoes: Whether prompts are echoed with log-probabilities: "yes", "refused" as llama.cpp's server does
            it, or "ignored" as Ollama does.
        names: Of the models that it lists.
        entry: What else it says of a model.
        by_id: Whether it can name tokens by their ids, as vLLM can.
        status: Path to (status, body) instead of an answer.
        refuses: The keys of requests that it does not know.
        fingerprint: What it calls the system.
    """

    def __init__(self, folder: Path, echoes: str = "yes") -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.echoes, self.names, self.by_id = echoes, ["org/tiny"], True
        self.entry: dict[str, Any] = {"object": "model", "owned_by": "tests"}
        self.status: dict[str, tuple[int, str]] = {}
        self.refuses: set[str] = set()
        self.fingerprint = "fp-1"
        self._lock, self._asked = threading.Lock(), 0

    def __call__(self, path: str, body: Mapping[str, Any]) -> Any:
        if path in self.status:
            return self.status[path]
        if self.refuses & body.keys():
            return 400, '{"error": {"message": "Unrecognized request argument"}}'
        with self._lock, torch.no_grad():
            self._asked += 1
            if path == "/v1/models":  # the time is that of the request, as with vLLM
                return {"data": [{**self.entry, "id": one, "created": self._asked} for one in self.names]}
            if body["model"] not in self.names:
                return 404, '{"error": {"message": "no such model"}}'
            if path == "/v1/chat/completions":
                tokens = self.tokenizer.apply_chat_template(
                    body["messages"], add_generation_prompt=True, return_dict=False
                )
                return completion(self._write(tokens, body)) | {"system_fingerprint": self.fingerprint}
            assert path == "/v1/completions"
            return self._complete(body)

    def _complete(self, body: Mapping[str, Any]) -> Any:
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        rows = [self.tokenizer(prompt)["input_ids"] for prompt in prompts]
        if body.get("echo") and self.echoes == "refused":
            return 500, '{"error": {"message": "Only no echo is supported"}}'
        echo = body.get("echo") and self.echoes == "yes"
        choices = []
        for index, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
            choice = {"index": index, "text": self._write(row, body), "logprobs": None}
            if echo:
                choice["text"] = prompt + choice["text"]
                choice["logprobs"] = self._logprobs(
                    row, ids=self.by_id and "return_tokens_as_token_ids" in body
                )
            choices.append(choice)
        usage = {"prompt_tokens": sum(map(len, rows)), "completion_tokens": len(rows)}
        return {"choices": choices[::-1], "usage": usage, "system_fingerprint": self.fingerprint}

    def _write(self, tokens: list[int], body: Mapping[str, Any]) -> str:
        ends = [self.tokenizer.eos_token_id, self.tokenizer.convert_tokens_to_ids("<|end|>")]
        written = self.model.generate(
            torch.tensor([tokens]),
            max_new_tokens=body["max_tokens"],
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=ends[0],
        )[0, len(tokens) :]
        return str(self.tokenizer.decode(written, skip_special_tokens=True))

    def _logprobs(self, row: list[int], *, ids: bool) -> dict[str, Any]:
        logits = self.model(torch.tensor([row])).logits[0].double().log_softmax(-1)
        values = [None] + [float(logits[k - 1, token]) for k, token in enumerate(row) if k]
        last = int(logits[-1].argmax())
        names = [f"token_id:{token}" if ids else self.tokenizer.decode([token]) for token in [*row, last]]
        return {"tokens": names, "token_logprobs": [*values, float(logits[-1, last])]}
