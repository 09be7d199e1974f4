"""Reading for one question: what the model's own layers say of a text, beside any memory of it."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.readers.homer import Homer, Node, go_on_from
    from infllm.engine.readers.merge_plan import MergePlan, plan_merges
    from infllm.engine.readers.row_sums import attention_rows

__all__ = ["Homer", "MergePlan", "Node", "attention_rows", "go_on_from", "plan_merges"]

__getattr__ = lazily(
    __name__,
    {
        "homer": ("Homer", "Node", "go_on_from"),
        "merge_plan": ("MergePlan", "plan_merges"),
        "row_sums": ("attention_rows",),
    },
)
