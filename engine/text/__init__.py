"""Text to token ids and back, and the words of a prompt around a document."""

from typing import TYPE_CHECKING

from infllm.engine.lazy import lazily

if TYPE_CHECKING:
    from infllm.engine.text.prompt import (
        Prompt,
        PromptText,
        build_prompt,
        build_turn,
        chat_template,
        prompt_text,
        wrap_text,
        wrapped_text,
    )
    from infllm.engine.text.tokenizer import TextTokenizer, Tokenizer
    from infllm.engine.text.tokenizer_folder import read_tokenizer

__all__ = [
    "Prompt", "PromptText", "TextTokenizer", "Tokenizer", "build_prompt", "build_turn",
    "chat_template", "prompt_text", "read_tokenizer", "wrap_text", "wrapped_text",
]  # fmt: skip

__getattr__ = lazily(
    __name__,
    {
        "prompt": (
            "Prompt", "PromptText", "build_prompt", "build_turn", "chat_template", "prompt_text",
            "wrap_text", "wrapped_text",
        ),
        "tokenizer": ("TextTokenizer", "Tokenizer"),
        "tokenizer_folder": ("read_tokenizer",),
    },
)  # fmt: skip
