"""A sample as token ids: the prompts that a model is given, exactly."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infllm.cli.bench.sample import Sample
from infllm.cli.reading import kept_ranges

if TYPE_CHECKING:
    from infllm.cli.bench.source import Source
    from infllm.engine.config import Config
    from infllm.engine.text import Tokenizer


@dataclass(frozen=True)
class EncodedSample:
    """Ids of head and context, read once, and of each turn's tail.

    `kept`: which tokens of the context (start, stop) are read; the others are left out because
    the configuration's max_len asked for it. `head` begins with the only BOS.
    """

    head: list[int]
    whole: list[int]  # context with what is left out
    tails: list[list[int]]
    kept: list[tuple[int, int]]

    @property
    def context(self) -> list[int]:
        """What is read of the context."""
        return [i for start, stop in self.kept for i in self.whole[start:stop]]

    @property
    def given(self) -> int:
        """Tokens of head, whole context and all tails."""
        return len(self.head) + len(self.whole) + sum(map(len, self.tails))

    @property
    def truncated(self) -> int:
        return len(self.whole) - sum(stop - start for start, stop in self.kept)


def fitted_sources(
    source: "Source", tokenizer: "Tokenizer", config: "Config"
) -> dict[bool, "Source"]:
    """The source of samples for this model: of tasks with a chat template (True) and without.

    Raises ConfigError: a chat template that fails.
    """
    from infllm.engine.text import chat_template, wrap_text

    def fitted(chat: bool) -> "Source":
        empty = wrap_text(tokenizer, config, "", "", chat)
        around = len(empty.head_ids) + len(empty.tail_ids)
        return replace(source, tokenizer=tokenizer, around=around, completion=completion)

    completion = chat_template(tokenizer, config) is None
    plain = fitted(False)
    return {False: plain, True: plain if completion else fitted(True)}


def encode_sample(
    tokenizer: "Tokenizer", config: "Config", sample: Sample, chat: bool
) -> EncodedSample:
    """The sample's ids, within the configuration's max_len; `chat`: in the model's chat template.

    Raises:
        BudgetExceeded: longer than max_len, and no truncation was asked for.
        infllm.engine.errors.ConfigError: a chat template that fails.
    """
    from infllm.engine.text import wrap_text

    prompts = [wrap_text(tokenizer, config, sample.head, turn.tail, chat) for turn in sample.turns]
    head = prompts[0].head_ids
    tails = [prompt.tail_ids for prompt in prompts]
    context = tokenizer.encode(sample.context, inner=bool(sample.head))
    kept = kept_ranges(len(context), config, len(head) + max(map(len, tails)))
    return EncodedSample(head, context, tails, kept)


def spell(tokenizer: "Tokenizer", ids: list[int]) -> str:
    """The text of `ids` with its control tokens spelled out."""
    pieces: list[str] = []
    run: list[int] = []
    for token in ids:
        if token in tokenizer.special_ids:
            pieces += [tokenizer.decode(run), str(tokenizer.hf.convert_ids_to_tokens(token))]
            run = []
        else:
            run.append(token)
    return "".join([*pieces, tokenizer.decode(run)])
