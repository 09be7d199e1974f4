"""Reading for one question: what the model's own layers say of a text, beside any memory of it."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.readers.row_sums import attention_rows

__all__ = ["attention_rows"]

__getattr__ = lazily(__name__, {"row_sums": ("attention_rows",)})
