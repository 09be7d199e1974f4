"""Settings of readers: ways to read a document for one question. Lengths are in tokens."""

from typing import Literal

from infllm.engine.config.values import Count, Settings


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
