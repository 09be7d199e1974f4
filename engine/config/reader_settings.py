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
    """The `homer:` section (arXiv 2404.10308): chunks that are merged two by two and reduced."""

    chunk: Count | None = None  # prompt included; None: half of the model's trained length
    target: Count | None = None  # of what the last merge leaves; None: `chunk`
    layers_warmup: CountOrZero = 12  # before the first merge; fewer where the model has few layers
    calibration: str | None = None  # a table's file; None: the one of `infllm calibrate`, if any
