"""An engine with the interface of the real one and a scripted model, free of torch."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Self

from infllm.engine.config import Config
from infllm.engine.text import Prompt


class FakeTokenizer:
    """One token per word with the white space before it, and a special token or two."""

    bos_id, eos_id = 0, 1

    def __init__(self) -> None:
        self.words = ["<|begin|>", "<|end|>"]
        self.ids = {word: i for i, word in enumerate(self.words)}

    def encode(self, text: str, inner: bool = False) -> list[int]:
        ids = []
        for word in self._split(text):
            if word not in self.ids:
                self.ids[word] = len(self.words)
                self.words.append(word)
            ids.append(self.ids[word])
        return ids

    def added_id(self, content: str) -> int | None:
        return None

    def spell(self, ids: Sequence[int]) -> str:
        return self.decode(ids)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.words[i] for i in ids if i > 1)

    def offsets(self, text: str, ids: Sequence[int]) -> list[int]:
        offsets, at = [], 0
        for word in self._split(text):
            offsets.append(at)
            at += len(word)
        return offsets

    def stream(self) -> Any:
        return SimpleNamespace(push=lambda i: self.decode([i]), flush=lambda: "")

    @staticmethod
    def _split(text: str) -> list[str]:
        return re.findall(r"\s*\S+|\s+$", text)


class Block(list[float]):
    """As much of a float tensor as its reader needs."""

    def tolist(self) -> list[float]:
        return list(self)


class Device(str):
    type = "cpu"


@dataclass
class FakeSession:
    """Knows what it read; a window policy has forgotten all but the last `window` tokens."""

    engine: "FakeEngine"
    policy: str
    given: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)

    window = 64

    def read(self, ids: list[int]) -> None:
        limit = self.engine.interrupt_reading_at
        if limit is not None and len(self.given) + len(ids) > limit:
            raise KeyboardInterrupt
        self.given.extend(ids)

    def end(self, units: bool = False) -> None:
        self.ended.append(len(self.given))

    def fork(self) -> "FakeSession":
        other = FakeSession(self.engine, self.policy, list(self.given), list(self.ended))
        self.engine.sessions.append(other)
        return other

    def in_sight(self) -> list[tuple[int, int]]:
        return [(0, len(self.given))]

    @property
    def position(self) -> int:
        return len(self.given)

    @property
    def stats(self) -> Any:
        return SimpleNamespace(tokens_read=len(self.given), device_bytes=0, host_bytes=0)

    def generate(self, max_new_tokens: int, **sampling: Any) -> Iterator[Any]:
        sampling.pop("units", None)
        sampling.pop("drafts", None)
        self.engine.sampling = {"max_new_tokens": max_new_tokens, **sampling}
        words = self.engine.tokenizer.encode(self.engine.answer(self.text()))
        for n, token in enumerate(words[:max_new_tokens]):
            if n == self.engine.interrupt_answer_at:
                raise KeyboardInterrupt
            yield SimpleNamespace(id=token, units=[])

    def text(self) -> str:
        """What the session remembers, the question included."""
        seen = self.given if self.policy in ("inf-llm", "origin") else self.given[-self.window :]
        return self.engine.tokenizer.decode(seen)

    def nll(self, ids: list[int]) -> Iterator[Block]:
        """The NLL of a token is 1 nat, 2 where an `origin` is beyond 512 tokens."""
        for start in range(1, len(ids), 100):
            positions = range(start, min(start + 100, len(ids)))
            yield Block(2.0 if self.policy == "origin" and p > 512 else 1.0 for p in positions)


class FakeEngine:
    """Answers with `answer(text)`; Ctrl-C is played where the two `interrupt_` counts say."""

    def __init__(self, config: Config, answer: Any = None) -> None:
        self.config = config
        self.answer = answer or find_pass_key
        self.tokenizer = FakeTokenizer()
        self.device = Device("cpu")
        self.dtype = "torch.float32"
        self.model = SimpleNamespace(
            config=SimpleNamespace(to_dict=lambda: {"max_position_embeddings": 1024})
        )
        self.sessions: list[FakeSession] = []
        self.sampling: dict[str, Any] = {}
        self.interrupt_reading_at: int | None = None
        self.interrupt_answer_at: int | None = None
        self.closed = False
        self.bytes_per_token = 1000
        self.rounds_rows = False
        self.digests = {"model": "1" * 64, "tokenizer": "2" * 64}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.closed = True

    def estimate(self, n_tokens: int, overrides: dict[str, Any]) -> Any:
        return SimpleNamespace(device_bytes=0, host_bytes=n_tokens * self.bytes_per_token)

    def session(self, start: int = 0, overrides: dict[str, Any] | None = None) -> FakeSession:
        policy = (overrides or {}).get("type", self.config.model.type)
        self.sessions.append(FakeSession(self, policy))
        return self.sessions[-1]


def find_pass_key(text: str) -> str:
    found = re.search(r"The pass key is (\d+)", text)
    return f" {found[1]}" if found else " I do not know."


def build_prompt(tokenizer: FakeTokenizer, config: Config, task: str, **fields: str) -> Any:
    """BOS, the document, and the plain form of the question."""
    tail = f"\n\nQuestion: {fields['question']}\nAnswer:" if fields else f"\n\nTask: {task}"
    return Prompt([tokenizer.bos_id], tokenizer.encode(tail))


def build_turn(tokenizer: FakeTokenizer, config: Config, question: str, first: bool) -> Any:
    return build_prompt(tokenizer, config, "ask", question=question).tail_ids


class Fakes:
    """Takes the place of `infllm.engine.load` and of a prompt's words for a test."""

    def __init__(self, monkeypatch: Any) -> None:
        import infllm.engine.text

        self.answer: Any = None
        self.prepare: Any = lambda engine: None
        self.engines: list[FakeEngine] = []
        words = vars(infllm.engine.text)
        monkeypatch.setitem(vars(infllm.engine), "load", self.load)
        monkeypatch.setitem(words, "build_prompt", build_prompt)
        monkeypatch.setitem(words, "build_turn", build_turn)
        monkeypatch.setitem(words, "chat_template", lambda tokenizer, config: None)

    def load(self, config: Config) -> FakeEngine:
        engine = FakeEngine(config, self.answer)
        self.prepare(engine)
        self.engines.append(engine)
        return engine

    @property
    def engine(self) -> FakeEngine:
        return self.engines[-1]
