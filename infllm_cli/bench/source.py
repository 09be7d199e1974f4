"""What a task's samples are made of: files on this disk, a tokenizer, lengths and a seed."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from infllm.cli.errors import UsageError

if TYPE_CHECKING:
    from infllm.engine.text import Tokenizer


@dataclass(frozen=True)
class Source:
    """Where samples come from. Tasks over data read `data`; generated tasks use the rest.

    tokenizer: measures generated contexts. lengths: tokens of prompt and answer together.
    count: samples per length. around: tokens that the caller puts around a prompt (BOS, the
    chat template), kept free. haystack: a text, or a folder of texts, to hide needles in.
    qa: a file in SQuAD or HotpotQA format. completion: the model has no chat template.
    """

    data: Path | None = None
    tokenizer: "Tokenizer | None" = None
    lengths: list[int] = field(default_factory=list)
    count: int = 20
    seed: int = 0
    around: int = 1
    haystack: Path | None = None
    qa: Path | None = None
    completion: bool = False

    @property
    def haystack_text(self) -> str:
        """The haystack's text, white space run together, in the order of file names.

        Raises:
            UsageError: none was given. DocumentError: it cannot be read.
        """
        if self.haystack is None:
            raise UsageError(
                "this task hides its needles in text of yours, and none was given",
                "give --haystack a text file or a folder of them, a long book for instance",
            )
        return _read_text(self.haystack)


@lru_cache(maxsize=2)
def _read_text(path: Path) -> str:
    from infllm.cli.documents.reading import read_sources

    documents = read_sources([str(path)]).documents
    return re.sub(r"\s+", " ", "\n".join(document.text for document in documents)).strip()
