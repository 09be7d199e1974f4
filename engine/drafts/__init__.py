"""Drafts: tokens that a model may say next, found in what there is, for a step to try together."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.drafts.document import DocumentDrafts
    from infllm.engine.drafts.lookahead import Lookahead
    from infllm.engine.drafts.suffix_array import SuffixArray
    from infllm.engine.drafts.tree import Drafts, Tree

__all__ = ["DocumentDrafts", "Drafts", "Lookahead", "SuffixArray", "Tree"]

__getattr__ = lazily(
    __name__,
    {
        "document": ("DocumentDrafts",),
        "lookahead": ("Lookahead",),
        "suffix_array": ("SuffixArray",),
        "tree": ("Drafts", "Tree"),
    },
)
