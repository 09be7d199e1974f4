"""Form values and comments of a page, by pypdf."""

from __future__ import annotations

from typing import Any

from pypdf.generic import ArrayObject, DictionaryObject

from infllm.cli.documents.pdf_form import SILENT, Comment, Field

PARENTS = 32  # a field inside fields
ANNOTATIONS = 20_000  # of a page
BUTTON_RADIO, BUTTON_PUSH = 1 << 15, 1 << 16
UNSEEN = 2 | 32  # hidden, no view


class Annotations:
    """Those of one page. ``hidden``: characters of those that viewers do not show."""

    def __init__(self, page: DictionaryObject):
        self.fields: list[Field] = []
        self.comments: list[Comment] = []
        self.hidden = 0
        annotations = _plain(page.get("/Annots"))
        for item in annotations[:ANNOTATIONS] if isinstance(annotations, ArrayObject) else ():
            annotation = _plain(item)
            if not isinstance(annotation, DictionaryObject):
                continue
            kind = str(_plain(annotation.get("/Subtype", ""))).lstrip("/")
            shown = ""
            if kind == "Widget":
                field = _field(annotation)
                if field is not None:
                    self.fields.append(field)
                    shown = field.value
            elif kind not in SILENT:
                shown = _text(annotation.get("/Contents"))
                if shown.strip():
                    self.comments.append(Comment(kind, shown, _text(annotation.get("/T"))))
            flags = _plain(annotation.get("/F", 0))
            if isinstance(flags, int) and flags & UNSEEN:
                self.hidden += len(shown.strip())


def _field(widget: DictionaryObject) -> Field | None:
    chain = [widget]
    while len(chain) < PARENTS:
        parent = _plain(chain[-1].get("/Parent"))
        if not isinstance(parent, DictionaryObject):
            break
        chain.append(parent)
    kind = str(_inherited(chain, "/FT") or "").lstrip("/")
    names = [_text(part.get("/T")) for part in reversed(chain)]
    name = _text(_inherited(chain, "/TU")) or ".".join(filter(None, names))
    value = _inherited(chain, "/V")
    if kind == "Tx":
        return Field("text", name, _text(value))
    if kind == "Ch":
        return Field("choice", name, _options(_inherited(chain, "/Opt"), value))
    if kind == "Sig":
        return Field("signature", name, "signed" if value is not None else "")
    flags = _inherited(chain, "/Ff") or 0
    if kind != "Btn" or flags & BUTTON_PUSH:
        return None
    state = str(_plain(widget.get("/AS", ""))).lstrip("/")
    return Field(
        "radio" if flags & BUTTON_RADIO else "checkbox",
        name,
        _text(value).lstrip("/"),
        _export(widget) or (state if state != "Off" else ""),
        state not in ("", "Off"),
    )


def _export(widget: DictionaryObject) -> str:
    """What a box stands for: the name of its appearance that is not Off."""
    appearance = _plain(widget.get("/AP"))
    normal = _plain(appearance.get("/N")) if isinstance(appearance, DictionaryObject) else None
    if not isinstance(normal, DictionaryObject):
        return ""
    names = [str(key).lstrip("/") for key in normal if key.startswith("/") and key != "/Off"]
    return names[0] if len(names) == 1 else ""


def _options(options: Any, value: Any) -> str:
    """The chosen options as a reader sees them: their value may be a code."""
    chosen = [_text(v) for v in value] if isinstance(value, ArrayObject) else [_text(value)]
    labels = {}
    for option in options if isinstance(options, ArrayObject) else ():
        pair = _plain(option)
        if isinstance(pair, ArrayObject) and len(pair) == 2:
            labels[_text(pair[0])] = _text(pair[1])
    return ", ".join(labels.get(one, one) for one in chosen if one)


def _inherited(chain: list[DictionaryObject], key: str) -> Any:
    for part in chain:
        if key in part:
            return _plain(part[key])
    return None


def _plain(value: Any) -> Any:
    return value.get_object() if hasattr(value, "get_object") else value


def _text(value: Any) -> str:
    value = _plain(value)
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return "" if value is None else str(value)
