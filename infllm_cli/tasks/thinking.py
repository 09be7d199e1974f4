"""What a reasoning model thinks before it answers, told apart from the answer as it streams."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infllm.engine.text import Tokenizer

# Opening tags and what closes each. Some models spell them in text, some as tokens of their own.
TAGS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|begin_of_thought|>": "<|end_of_thought|>",
}
CLOSING = frozenset(TAGS.values())
LONGEST = max(map(len, [*TAGS, *CLOSING]))
TAIL = 64  # tokens of a prompt in which its template may have opened a tag


class Thinking:
    """Splits text, pushed token by token, at thinking tags.

    `push` and `flush` give what belongs to the answer: all but the tags and what stands between
    them, or, with `shown`, everything. `tokens` counts those that were left out, tags included.
    A tag in text counts where it begins an answer, since further on an answer may well speak of
    tags; a token that is a tag counts anywhere. `opened`: the tag that the prompt ended in, if any.
    """

    def __init__(self, shown: bool = False, opened: str | None = None) -> None:
        self.shown = shown
        self.tokens = 0
        self._closing = TAGS[opened] if opened else None
        self._held = ""
        self._undecided = 0  # tokens of what is held outside of thinking
        self._begun = False  # the answer: text that is neither blank nor thinking

    @property
    def inside(self) -> bool:
        """Whether the model is still thinking."""
        return self._closing is not None

    def push(self, text: str, is_tag: bool = False) -> str:
        """What became sure to be answer with one more token; `is_tag`: the token is one of `TAGS`
        or `CLOSING`."""
        if self.shown:
            return text
        was_inside = self.inside
        answer = self._tag(text) if is_tag else self._text(text)
        if was_inside or self.inside or is_tag:
            self.tokens += 1 + self._undecided
            self._undecided = 0
        else:
            self._undecided = self._undecided + 1 if self._held else 0
        return answer

    def flush(self) -> str:
        """What was held back, at the end."""
        held, self._held = self._held, ""
        return "" if self.inside else held

    def _tag(self, tag: str) -> str:
        if self.inside:
            if tag == self._closing:
                self._close()
            return ""
        answer = self.flush()
        self._closing = TAGS.get(tag)
        return answer

    def _close(self) -> None:
        self._closing, self._held = None, ""

    def _text(self, text: str) -> str:
        if self._closing is not None:
            _, closed, rest = (self._held + text).partition(self._closing)
            if not closed:  # what may yet become the closing tag is all that is worth keeping
                self._held = (self._held + text)[-(len(self._closing) - 1) :]
                return ""
            self._close()
            text = rest
        if self._begun:
            return text
        text = (self._held + text).lstrip()
        self._held = ""
        for tag in (*TAGS, *CLOSING):  # a closing one: of what nobody opened
            if text.startswith(tag):
                self._closing = TAGS.get(tag)
                return self._text(text[len(tag) :])
        if not text or _may_begin_tag(text):
            self._held = text
            return ""
        self._begun = True
        return text


def _may_begin_tag(text: str) -> bool:
    return len(text) < LONGEST and any(tag.startswith(text) for tag in (*TAGS, *CLOSING))


def opened_by_prompt(tokenizer: "Tokenizer", ids: Sequence[int]) -> str | None:
    """The thinking tag that a prompt ends in and does not close: its template put it there.

    `ids`: the prompt's, or the end of it.
    """
    text = tokenizer.spell(ids[-TAIL:])
    pattern = "|".join(map(re.escape, [*TAGS, *CLOSING]))
    found = list(re.finditer(pattern, text))
    if not found or found[-1][0] in CLOSING or text[found[-1].end() :].strip():
        return None
    return found[-1][0]


def tag_tokens(tokenizer: "Tokenizer") -> dict[int, str]:
    """Tokens that spell a whole thinking tag; a text stream leaves them out if they are control."""
    known = ((tokenizer.added_id(tag), tag) for tag in (*TAGS, *CLOSING))
    return {number: tag for number, tag in known if number is not None}
