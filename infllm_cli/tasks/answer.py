"""The answer as text: from generated tokens, streamed, ended by stop texts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from infllm.cli.options import Sampling
from infllm.cli.tasks.repetition import Repetition
from infllm.cli.tasks.thinking import Thinking, tag_tokens
from infllm.cli.text import clean

if TYPE_CHECKING:
    from infllm.engine import Session
    from infllm.engine.drafts import Drafts
    from infllm.engine.session import UnitMass
    from infllm.engine.text import Tokenizer


@dataclass(frozen=True)
class Answer:
    """Text, and what it took. `finish` is "stop", "length", "repetition" or "interrupted".

    `tokens_thinking` of the tokens were thinking, which is not in the text. `units`, if they were
    asked for: of each token, the memory units that chose it; `pieces` are the tokens' texts.
    """

    text: str
    tokens: int
    seconds: float
    finish: str
    units: list[list["UnitMass"]] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    tokens_thinking: int = 0


class StopTexts:
    """Passes text through until a stop text appears; holds back what may be the start of one.

    One of white space alone stops nothing before an answer has begun.
    """

    def __init__(self, stops: Sequence[str]):
        self.stops = [stop for stop in stops if stop]
        self.stopped = False
        self._held = ""
        self._begun = False

    def push(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        held = self._held
        first = 0 if self._begun else len(held) - len(held.lstrip())
        found = (held.find(stop, first if stop.isspace() else 0) for stop in self.stops)
        cuts = [at for at in found if at >= 0]
        if cuts:
            self.stopped = True
            return self._release(min(cuts))
        return self._release(len(self._held) - self._possible_start())

    def flush(self) -> str:
        return "" if self.stopped else self._release(len(self._held))

    def _possible_start(self) -> int:
        """Length of the longest end of the held text that begins a stop text."""
        longest = max((len(stop) for stop in self.stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self.stops):
                return length
        return 0

    def _release(self, length: int) -> str:
        out, self._held = self._held[:length], self._held[length:]
        self._begun = self._begun or bool(out.strip())
        return out


class Trimmed:
    """Passes text through without white space at either end."""

    def __init__(self) -> None:
        self._begun = False
        self._held = ""

    def push(self, text: str) -> str:
        text = self._held + text
        if not self._begun:
            text = text.lstrip()
        kept = text.rstrip()
        self._begun = self._begun or bool(kept)
        self._held = text[len(kept) :] if self._begun else ""
        return kept


def generate_answer(
    session: "Session",
    tokenizer: "Tokenizer",
    sampling: Sampling,
    write: Callable[[str], None] = lambda text: None,
    units: bool = False,
    drafts: "Drafts | None" = None,
) -> Answer:
    """Generate from what `session` has read and `write` each piece as soon as it is sure.

    `drafts` propose what may follow, and change no token. Ctrl-C ends the answer, it does not lose
    it: `finish` is then "interrupted". One that repeats itself without end is stopped, with
    `finish` "repetition"; of what it repeats, the first round or two are the answer's.
    """
    stops, trimmed, stream = StopTexts(sampling.stop), Trimmed(), tokenizer.stream()
    thinking = Thinking(sampling.show_thinking, sampling.thinking_tag)
    tags = tag_tokens(tokenizer)
    repetition = Repetition()
    pieces: list[str] = []
    held: list[str] = []  # while the answer may be going round in a circle
    attended: list[list[UnitMass]] = []
    spelled: list[str] = []
    tokens, finish = 0, "stop"
    started = time.monotonic()

    def emit(text: str) -> None:
        held.append(text)
        if repetition.doubtful and sampling.stop_repetition:
            return
        piece = trimmed.push("".join(held))
        held.clear()
        if piece:
            pieces.append(piece)
            write(piece)

    more: dict[str, Any] = {} if drafts is None else {"drafts": drafts}
    generated = session.generate(
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        units=units,
        **more,
    )
    try:
        for token in generated:
            tokens += 1
            repetition.push(token.id)
            if units:
                attended.append(token.units)
                spelled.append(tokenizer.decode([token.id]))
            tag = tags.get(token.id)
            if tag is None:
                said = thinking.push(clean(stream.push(token.id)))
            else:
                said = thinking.push(clean(stream.flush())) + thinking.push(tag, is_tag=True)
            emit(stops.push(said))
            if stops.stopped:
                break
            if repetition.endless and sampling.stop_repetition:
                finish = "repetition"
                break
        if finish != "repetition":
            repetition.doubtful = False
            emit(stops.push(thinking.push(clean(stream.flush())) + thinking.flush()))
            emit(stops.flush())
            if tokens == sampling.max_new_tokens and not stops.stopped:
                finish = "length"
    except KeyboardInterrupt:
        finish = "interrupted"
        repetition.doubtful = False
        emit("")
    took = time.monotonic() - started
    text = "".join(pieces)
    return Answer(text, tokens, took, finish, attended, spelled, thinking.tokens)
