"""Settings of readers: ways to read a document for one question. Lengths are in tokens."""

from typing import Literal

from infllm.engine.config.values import Count, CountOrZero, Settings


class InfiniRetriSettings(Settings):
    """The `infiniretri:` section: windows of sentences, of which the question chooses some.

    Defaults as published (PyPI infini-retri 0.0.3).
    """

    window: Count = 1024  # of new sentences; what is carried along and the prompt come on top
    topk: Count = 300  # tokens that keep the sentences they stand in
    phrase_tokens: Count = 8  # neighbours whose attention is summed
    # Weight of the question's tokens: `none`, all alike, or `first`, by the square of what each
    # attended of the question in the first window, as the published code has it.
    question_weight: Literal["none", "first"] = "none"


class HomerSettings(Settings):
    """The `homer:` section: chunks that are merged up a binary tree (arXiv 2404.10308)."""

    # Tokens of a chunk with the prompt around it, and of what two are merged to. None: half of what
    # the model can hold, as published, and at most 4,096.
    chunk: Count | None = None
    target: Count | None = None  # tokens that are left at last; None: as many as in `chunk`
    # Layers that chunks run before any merging; None: 12, as published, at most half.
    warmup: CountOrZero | None = None
    calibration: str | None = None  # a file of `infllm calibrate`; None: the one in the cache
