"""Reading for one question: what the model's own layers say of a text, beside any memory of it."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.readers.calibration import save_bias
    from infllm.engine.readers.homer import Homer, Node, go_on_from
    from infllm.engine.readers.merge_plan import MergePlan, plan_merges
    from infllm.engine.readers.merging import Merged, Merging
    from infllm.engine.readers.row_sums import attention_rows

__all__ = [
    "Homer", "MergePlan", "Merged", "Merging", "Node", "attention_rows", "go_on_from",
    "plan_merges", "save_bias",
]  # fmt: skip

__getattr__ = lazily(
    __name__,
    {
        "calibration": ("save_bias",),
        "homer": ("Homer", "Node", "go_on_from"),
        "merge_plan": ("MergePlan", "plan_merges"),
        "merging": ("Merged", "Merging"),
        "row_sums": ("attention_rows",),
    },
)
