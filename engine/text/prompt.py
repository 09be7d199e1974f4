"""The tokens around a document: what goes before it, and the question after it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from string import Formatter

from jinja2 import TemplateError

from infllm.engine.config import Config, PromptConfig
from infllm.engine.errors import ConfigError
from infllm.engine.text.tokenizer import Tokenizer

_ASK = "\n\nQuestion: {question}\nAnswer:"

# A model without a chat template continues text, so the prompt is text that an answer follows.
COMPLETION = {
    "ask": PromptConfig(head="", tail=_ASK),
    "passkey": PromptConfig(head="", tail=_ASK),
    "summarize": PromptConfig(
        head="", tail="\n\nQuestion: What is a summary of the text above?\nAnswer:"
    ),
    "summarize-map": PromptConfig(
        head="", tail="\n\nQuestion: What is a summary of the text above?\nAnswer:"
    ),
    "summarize-reduce": PromptConfig(
        head="", tail="\n\nQuestion: What is a summary of the summaries above?\nAnswer:"
    ),
}

CHAT = {
    "ask": PromptConfig(
        head="Read the document, then answer the question about it.\n\n",
        tail="\n\nQuestion: {question}\nAnswer concisely, from the document only.",
    ),
    "passkey": PromptConfig(head="", tail="\n\n{question}"),
    "summarize": PromptConfig(
        head="Read the document, then summarize it.\n\n",
        tail="\n\nWrite a summary of the document above: its main points, in order.",
    ),
    "summarize-map": PromptConfig(
        head="Read this part of a longer document, then summarize it.\n\n",
        tail="\n\nWrite a short summary of the part above, keeping names, numbers and events.",
    ),
    "summarize-reduce": PromptConfig(
        head="Below are summaries of consecutive parts of one document.\n\n",
        tail="\n\nWrite one summary of the whole document from the summaries above.",
    ),
}


def _each(user: str, assistant: str) -> str:
    """The part of a template that writes every turn; a system role is left to the rest of it."""
    return (
        f"{{% for m in messages %}}{{% if m.role == 'user' %}}{user}"
        f"{{% elif m.role == 'assistant' %}}{assistant}{{% endif %}}{{% endfor %}}"
    )


_SYSTEM = "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% else %}"
# The published forms behind `conv_type`, for tokenizers that bring no template of their own.
# Jinja drops a template's last newline, so those that end in one go on with an empty string.
CONVERSATIONS = {
    "mistral-inst": "<s>" + _each("[INST] {{ m.content }} [/INST]", " {{ m.content }}</s>"),
    "llama-3-inst": (
        "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>"
        "\n\n{{ m.content }}<|eot_id|>{% endfor %}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{{ '' }}"
    ),
    "vicuna": (
        f"{_SYSTEM}A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
        "{% endif %} " + _each("USER: {{ m.content }} ASSISTANT:", " {{ m.content }}</s>")
    ),
    "qwen": (
        f"<|im_start|>system\n{_SYSTEM}You are a helpful assistant.{{% endif %}}<|im_end|>\n"
        + _each(
            "<|im_start|>user\n{{ m.content }}<|im_end|>\n<|im_start|>assistant\n",
            "{{ m.content }}<|im_end|>\n",
        )
    ),
    "minicpm": _each("<用户>{{ m.content }}<AI>", "{{ m.content }}"),
}
# Some templates write today's date into the prompt, and with it every memory would be worth
# a day. One day stands for all; it is the one the Llama 3.1 template falls back to.
_DATE = date(2024, 7, 26)
_DATE_CALL = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")

# Stand for the texts while the template is rendered; private-use characters are in no template.
_SYSTEM_MARK, _HEAD_MARK, _TAIL_MARK = "\ue000", "\ue001", "\ue002"


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after a document's. `head_ids` hold the only BOS."""

    head_ids: list[int]
    tail_ids: list[int]


@dataclass(frozen=True)
class PromptText:
    """The same before it is ids: parts of text, in which control tokens are read where marked True.

    `bos_ids`: the BOS, where the parts do not spell it.
    """

    bos_ids: list[int]
    before: list[tuple[str, bool]]
    after: list[tuple[str, bool]]


def build_prompt(tokenizer: Tokenizer, config: Config, task: str, **fields: str) -> Prompt:
    """The prompt of `task` around a document: head_ids + document ids + tail_ids.

    `fields` fill the task's tail ({question}); the head takes none, so one reading of a document
    serves every question. A control token spelled in a field is text.

    Raises ConfigError: unknown task or field, a template that fails or drops its content.
    """
    return _encoded(tokenizer, prompt_text(tokenizer, config, task, **fields))


def prompt_text(tokenizer: Tokenizer, config: Config, task: str, **fields: str) -> PromptText:
    """What `build_prompt` encodes: for who puts text of its own between the two. Raises as it."""
    template = chat_template(tokenizer, config)
    words = _words(config, task, COMPLETION if template is None else CHAT)
    system = _filled(words.system or "", {}, task, "system")
    head = _filled(words.head or "", {}, task, "head")
    tail = _filled(words.tail or "", fields, task, "tail")
    return _around(tokenizer, template, system, head, tail)


def wrap_text(
    tokenizer: Tokenizer, config: Config, head: str, tail: str, chat: bool = True
) -> Prompt:
    """The prompt of a `head` and a `tail` that are text as they stand, braces included.

    With `chat`, and where the model has a chat template, the template is put around both. The
    head's ids do not depend on the tail.

    Raises ConfigError: a template that fails or drops its content.
    """
    return _encoded(tokenizer, wrapped_text(tokenizer, config, head, tail, chat))


def wrapped_text(
    tokenizer: Tokenizer, config: Config, head: str, tail: str, chat: bool = True
) -> PromptText:
    """What `wrap_text` encodes. Raises as it."""
    template = chat_template(tokenizer, config) if chat else None
    return _around(tokenizer, template, "", head, tail)


def _around(
    tokenizer: Tokenizer, template: str | None, system: str, head: str, tail: str
) -> PromptText:
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    if template is None:
        text = f"{system}\n\n{head}" if system else head
        return PromptText(bos, [(text, False)], [(tail, False)])

    before, after = _rendered(tokenizer, template, bool(system))
    texts = {_SYSTEM_MARK: system, _HEAD_MARK: head}
    pieces = re.split(f"([{_SYSTEM_MARK}{_HEAD_MARK}])", before)
    parts = [(texts.get(p, p), p not in texts) for p in pieces]
    if not tokenizer.adds_bos or tokenizer.encode_parts(parts)[:1] == bos:
        bos = []
    return PromptText(bos, parts, [(tail, False), (after, True)])


def _encoded(tokenizer: Tokenizer, text: PromptText) -> Prompt:
    head_ids = [*text.bos_ids, *tokenizer.encode_parts(text.before)]
    return Prompt(head_ids, tokenizer.encode_parts(text.after, inner=True))


def build_turn(
    tokenizer: Tokenizer, config: Config, question: str, first: bool = True
) -> list[int]:
    """Ids of a question that goes on a conversation; the `first` follows the document itself.

    A chat template ends the answer before it and opens the next one in its own way. Raises as
    `build_prompt`.
    """
    template = chat_template(tokenizer, config)
    if first or template is None:
        return build_prompt(tokenizer, config, "ask", question=question).tail_ids
    words = _words(config, "ask", CHAT)
    tail = _filled(words.tail or "", {"question": question}, "ask", "tail").strip()
    template = _DATE_CALL.sub(lambda call: f'"{_DATE.strftime(call[2])}"', template)
    messages = [
        {"role": "user", "content": _HEAD_MARK},
        {"role": "assistant", "content": _SYSTEM_MARK},
        {"role": "user", "content": _TAIL_MARK},
    ]
    try:
        text = _render(tokenizer, template, messages)
    except TemplateError:  # it knows one turn alone
        text = ""
    _, answered, rest = text.partition(_SYSTEM_MARK)
    between, asked, after = rest.partition(_TAIL_MARK)
    if not (answered and asked):
        return build_prompt(tokenizer, config, "ask", question=question).tail_ids
    return tokenizer.encode_parts([(between, True), (tail, False), (after, True)], inner=True)


def chat_template(tokenizer: Tokenizer, config: Config) -> str | None:
    """The Jinja template in force: the config's, the tokenizer's, `conv_type`'s, or None."""
    if config.chat_template is not None:
        return config.chat_template or None
    own = getattr(tokenizer.hf, "chat_template", None)
    if isinstance(own, dict):
        own = own.get("default")
    if own:
        return own
    return None if config.conv_type is None else CONVERSATIONS[config.conv_type]


def _words(config: Config, task: str, built_in: Mapping[str, PromptConfig]) -> PromptConfig:
    """The task's words: the config's parts over the built-in ones."""
    given = config.prompts.get(task)
    if task not in built_in and given is None:
        known = sorted({*built_in, *config.prompts})
        near = get_close_matches(task, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known tasks: {', '.join(known)}"
        raise ConfigError(f"no prompt for task {task!r}", hint)
    words = built_in.get(task, PromptConfig())
    if given is None:
        return words
    parts = {part: text for part, text in given if text is not None}
    return words.model_copy(update=parts)


def _filled(text: str, fields: Mapping[str, str], task: str, part: str) -> str:
    where = f"prompts.{task}.{part}"
    try:
        names = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ConfigError(f"{where}: {error}", "write {{ and }} for plain braces") from error
    unknown = sorted(names - fields.keys())
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in sorted(fields)) or "none"
        raise ConfigError(
            f"{where}: nothing fills {{{unknown[0]}}}; fields of this part: {known}",
            "write {{ and }} for plain braces",
        )
    return text.format_map(fields)


def _rendered(tokenizer: Tokenizer, template: str, system: bool) -> tuple[str, str]:
    """The template's text before the document and after the tail, with marks for our own texts."""
    template = _DATE_CALL.sub(lambda call: f'"{_DATE.strftime(call[2])}"', template)
    content = _HEAD_MARK + _TAIL_MARK
    user = {"role": "user", "content": content}
    try:
        if system:
            try:
                text = _render(
                    tokenizer, template, [{"role": "system", "content": _SYSTEM_MARK}, user]
                )
            except TemplateError:  # Gemma's and Mistral's know no system role
                text = ""
            if _SYSTEM_MARK not in text:
                user["content"] = f"{_SYSTEM_MARK}\n\n{content}"
                text = _render(tokenizer, template, [user])
        else:
            text = _render(tokenizer, template, [user])
    except TemplateError as error:
        raise ConfigError(
            f"the chat template cannot be rendered: {error}",
            "set chat_template to a Jinja template, or to false for none",
        ) from error
    before, mark, after = text.partition(_TAIL_MARK)
    if not mark or before.count(_HEAD_MARK) != 1 or _TAIL_MARK in after:
        raise ConfigError(
            "the chat template does not carry a user message through once",
            "set chat_template to a Jinja template, or to false for none",
        )
    return before, after


def _render(tokenizer: Tokenizer, template: str, messages: list[dict[str, str]]) -> str:
    text = tokenizer.hf.apply_chat_template(
        messages,
        chat_template=template,
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
    )
    assert isinstance(text, str)  # tokenize=False
    return text
