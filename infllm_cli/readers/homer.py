"""HOMER (arXiv 2404.10308): chunks with the question in each, merged to one prompt that fits."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from infllm.cli.readers.base import NOTHING, Excerpt, ReadByQuestion

if TYPE_CHECKING:
    from infllm.engine import Engine
    from infllm.engine.config import Config
    from infllm.engine.text import PromptText


def read_homer(
    engine: "Engine",
    document: Excerpt,
    prompt: "PromptText",
    question: str,
    told: Callable[[int], None],
    config: "Config",
) -> ReadByQuestion:
    """What is left of the prompt, in all layers; see `Reader`."""
    tokenizer = engine.tokenizer
    prefix = [*prompt.bos_ids, *tokenizer.encode_parts(prompt.before)]
    begun = any(text for text, _ in prompt.before)
    context = tokenizer.encode(document.text, inner=begun)
    suffix = tokenizer.encode_parts(prompt.after, inner=True)
    try:
        starts = [*tokenizer.offsets(document.text, context), len(document.text)]
    except ValueError:  # a tokenizer that changes the text: nothing can be cited
        starts = []
    done = 0

    def chunk_read(tokens: int) -> None:
        nonlocal done
        before, done = done, done + tokens
        share = [len(document.text) * n // len(context) for n in (before, done)]
        told(share[1] - share[0])

    session = engine.session(overrides={"type": "origin"})
    merged = engine.merging(config.homer).read(prefix, context, suffix, session, chunk_read)
    kept = pieces(document, starts, merged.kept) if starts else NOTHING
    return ReadByQuestion(merged.session, kept.ranges(), merged.read)


def pieces(document: Excerpt, starts: list[int], kept: list[int]) -> Excerpt:
    """The text of tokens `kept`, ascending; token i begins at character starts[i] of `document`."""
    places = [np.arange(starts[i], starts[i + 1]) for i in kept]
    where = np.concatenate(places) if places else np.empty(0, dtype=np.int64)
    return Excerpt("".join(document.text[i] for i in where), document.where[where])
