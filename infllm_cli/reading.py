"""Tokens into a session: within budgets and limits, with progress, as prompts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from infllm.cli.errors import BudgetExceeded, Interrupted
from infllm.cli.options import Sampling
from infllm.cli.output import Output
from infllm.cli.progress import Progress, available_memory_bytes, peak_memory_bytes
from infllm.cli.text import count, seconds, size

if TYPE_CHECKING:
    from infllm.engine import Engine, Session
    from infllm.engine.config import Config


@dataclass(frozen=True)
class Reading:
    """What reading one prompt took. Tokens count head, document and question; times are seconds.

    `tokens_truncated` were left out because the configuration's max_len asked for it;
    `tokens_kept` had been read before, in other seconds.
    """

    tokens_given: int
    tokens_read: int
    tokens_truncated: int
    seconds: float
    tokens_kept: int = 0

    @property
    def tokens_per_second(self) -> float:
        return (self.tokens_read - self.tokens_kept) / self.seconds if self.seconds > 0 else 0.0

    def plus(self, tokens: int, took: float) -> "Reading":
        """With a question of so many tokens read behind it, in so many seconds."""
        given, read = self.tokens_given + tokens, self.tokens_read + tokens
        # Seconds that are not known of the documents are not known of all.
        together = self.seconds + took if self.seconds else 0.0
        return replace(self, tokens_given=given, tokens_read=read, seconds=together)

    @property
    def sentence(self) -> str:
        """`read 812,345 tokens in 93.1 s (8,725 tok/s)`, and what was truncated if any was."""
        text = (
            f"read {count(self.tokens_read - self.tokens_kept)} tokens in {seconds(self.seconds)} "
            f"({self.tokens_per_second:,.0f} tok/s)"
        )
        if self.tokens_truncated:
            text += f", {count(self.tokens_truncated)} truncated as configured"
        return text

    @property
    def fields(self) -> dict[str, Any]:
        return {
            "tokens_given": self.tokens_given,
            "tokens_read": self.tokens_read,
            "tokens_truncated": self.tokens_truncated,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens_per_second, 1),
        }


def check_budget(tokens: int, budget: int | None) -> None:
    """Raises BudgetExceeded when more tokens were given than may be read."""
    if budget is not None and tokens > budget:
        raise BudgetExceeded(
            f"{count(tokens)} tokens to read, more than the budget of {count(budget)}",
            "raise --max-tokens, or give fewer sources",
        )


def kept_ranges(tokens: int, config: "Config", around: int) -> list[tuple[int, int]]:
    """The parts of a document that max_len lets in beside `around` prompt tokens, as start, stop.

    `suffix` keeps the end, `prefix` the beginning, `middle` takes out the middle.

    Raises:
        BudgetExceeded: the prompt is longer than max_len and no truncation was asked for.
    """
    if config.max_len is None or around + tokens <= config.max_len:
        return [(0, tokens)]
    if config.truncation is None:
        raise BudgetExceeded(
            f"{count(around + tokens)} tokens to read, more than max_len {count(config.max_len)}",
            "raise max_len, or let it be cut: --set truncation=middle (or prefix, suffix)",
        )
    room = max(0, config.max_len - around)
    cut = tokens - room
    if config.truncation == "suffix":
        return [(cut, tokens)]
    if config.truncation == "prefix":
        return [(0, room)]
    front = room // 2
    return [(0, front), (front + cut, tokens)]


def read_in_chunks(
    session: "Session", ids: Sequence[int], chunk: int, told: Callable[[int], None]
) -> None:
    """Give `ids` to the session chunk by chunk, so that Ctrl-C is heard between them.

    `told` hears how many tokens each chunk had.
    """
    for start in range(0, len(ids), chunk):
        part = list(ids[start : start + chunk])
        session.read(part)
        told(len(part))
    session.end()


def feed(session: "Session", ids: Sequence[int], chunk: int, progress: Progress) -> None:
    """Read `ids` in chunks, each an advance of `progress`.

    Raises:
        Interrupted: Ctrl-C; says how far reading came.
    """
    try:
        read_in_chunks(session, ids, chunk, progress.advance)
    except KeyboardInterrupt:
        read, total = session.stats.tokens_read, progress.total
        raise Interrupted(
            f"interrupted after reading {count(read)} of {count(total)} tokens",
            "nothing was answered; the same command starts over",
        ) from None


def tell_memory(engine: "Engine", policy: str, tokens: int, out: Output) -> None:
    """What the memory of `tokens` tokens will take; a warning where it is scarce."""
    needs = engine.estimate(tokens, {"type": policy})
    on_cpu = engine.device.type == "cpu"
    host = needs.host_bytes + (needs.device_bytes if on_cpu else 0)
    device = "" if on_cpu else f"{size(needs.device_bytes)} on {engine.device} and "
    out.detail(f"the memory of {count(tokens)} tokens takes {device}{size(host)} on the host")
    available = available_memory_bytes()
    if available is not None and host > available:
        out.warn(
            f"the memory of {count(tokens)} tokens takes about {size(host)}, and {size(available)} "
            f"are free; --set kv_dtype=int8 stores it smaller"
        )


# Of a model that goes on with the text: the next question, and what else there is to say.
NEXT_QUESTION, NEXT_PARAGRAPH = "\nQuestion:", "\n\n"


def with_prompt_stops(engine: "Engine", sampling: Sampling) -> Sampling:
    """`sampling` with what the model's prompts ask for.

    A model without chat template continues the text: behind its answer, a paragraph, it may write
    the next question itself, or anything. The template of a reasoning model may open the thinking.
    """
    from infllm.cli.tasks.thinking import opened_by_prompt
    from infllm.engine.text import build_prompt, chat_template

    assert engine.tokenizer is not None
    if chat_template(engine.tokenizer, engine.config) is None:
        return replace(sampling, stop=(*sampling.stop, NEXT_QUESTION, NEXT_PARAGRAPH))
    prompt = build_prompt(engine.tokenizer, engine.config, "ask", question="?")
    return replace(sampling, thinking_tag=opened_by_prompt(engine.tokenizer, prompt.tail_ids))


def read_prompt(
    engine: "Engine",
    session: "Session",
    text: str | list[int],
    task: str,
    fields: dict[str, str],
    out: Output,
    budget: int | None = None,
    label: str = "reading",
    policy: str | None = None,
) -> Reading:
    """Head, document and question of `task` into `session`, ready to generate from.

    `text` may be ids already; `policy` is the session's, where it is not the configuration's.
    Document and question are segments of their own, so that the question is looked up by itself.
    """
    from infllm.engine.text import build_prompt

    tokenizer = engine.tokenizer
    ids = tokenizer.encode(text) if isinstance(text, str) else text
    prompt = build_prompt(tokenizer, engine.config, task, **fields)
    around = len(prompt.head_ids) + len(prompt.tail_ids)
    kept = [i for a, b in kept_ranges(len(ids), engine.config, around) for i in ids[a:b]]
    check_budget(around + len(kept), budget)
    document = [*prompt.head_ids, *kept]
    tell_memory(engine, policy or engine.config.model.type, around + len(kept), out)
    chunk = engine.config.chunk_size

    def memory() -> int:
        stats = session.stats
        on_gpu = engine.device.type != "cpu"
        return stats.device_bytes + stats.host_bytes if on_gpu else peak_memory_bytes()

    with Progress(out, label, around + len(kept), memory) as progress:
        feed(session, document, chunk, progress)
        feed(session, prompt.tail_ids, chunk, progress)
        elapsed = progress.elapsed
    return Reading(around + len(ids), session.stats.tokens_read, len(ids) - len(kept), elapsed)
