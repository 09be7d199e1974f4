"""LLM-to-SLM (arXiv 2402.16844): a small model writes what a large one has read.

The large model reads the prompt once; its states, through two matrices, are added to the small
one's embeddings of the prompt. What the small model writes itself gets nothing added.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from infllm.engine.attachment import load_parts
from infllm.engine.config import ModelConfig
from infllm.engine.errors import ModelFileError
from infllm.engine.files import tokenizer_digest
from infllm.engine.guide.alignment import carried, overlaps, spans
from infllm.engine.guide.encoder import Encoder
from infllm.engine.text import Tokenizer

PROJECTOR, CARD = "projector.safetensors", "projector.json"
FORMAT = 1
NAMES = ("w1", "b1", "w2", "b2")


class Projector(nn.Module):
    """Z = W2 relu(W1 H + b1) + b2: states [n, encoder] to [n, small]. W2 begins as zero: until it
    is trained the small model is as it was."""

    def __init__(self, encoder: int, small: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = small if hidden is None else hidden
        self.w1 = nn.Parameter(torch.randn(hidden, encoder) * (2 / encoder) ** 0.5)
        self.b1 = nn.Parameter(torch.zeros(hidden))
        self.w2 = nn.Parameter(torch.zeros(small, hidden))
        self.b2 = nn.Parameter(torch.zeros(small))

    def forward(self, states: Tensor) -> Tensor:
        inner = torch.relu(states @ self.w1.T + self.b1)
        return inner @ self.w2.T + self.b2


@dataclass(frozen=True)
class Card:
    """What a projector was trained with. `encoder` as `--model` takes it."""

    encoder: str
    revision: str | None
    layer: int
    encoder_digest: str
    tokenizer: str  # digest of the small model's
    encoder_tokenizer: str
    format: int = FORMAT


class Guide:
    """What is added to the embeddings of tokens that are read."""

    def __init__(self, encoder: Encoder, projector: Projector, tokenizer: Tokenizer) -> None:
        self.encoder, self.tokenizer = encoder, tokenizer
        self.projector = projector.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, ids: Sequence[int]) -> Tensor:
        """float32 [1, T, small] for one pass over `ids`, which the encoder reads by themselves."""
        text, ours = spans(self.tokenizer, ids)
        theirs = self.encoder.tokenizer.encode(text)
        added = self.projector(self.encoder.states(theirs))
        at = overlaps(ours, spans(self.encoder.tokenizer, theirs)[1])
        return carried(added, at, len(ids))[None]

    def digest(self) -> str:
        """What tells this guide from others: the encoder and the projector."""
        digest = hashlib.sha256(self.encoder.digest().encode())
        for name in NAMES:
            digest.update(getattr(self.projector, name).detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()


def save_projector(
    folder: Path, projector: Projector, encoder: Encoder, tokenizer: Tokenizer, name: str,
    revision: str | None = None,
) -> None:  # fmt: skip
    """Put projector and card beside a small model. `name`: the encoder, as `--model` takes it."""
    card = Card(
        name, revision, encoder.layer, encoder.digest(), str(tokenizer_digest(tokenizer)),
        str(tokenizer_digest(encoder.tokenizer)),
    )  # fmt: skip
    tensors = {key: getattr(projector, key).detach().float().contiguous() for key in NAMES}
    (folder / CARD).write_text(json.dumps(asdict(card), indent=1) + "\n", encoding="utf-8")
    save_file(tensors, folder / PROJECTOR)  # last: with it the folder counts


def load_guide(settings: ModelConfig, model: Any, tokenizer: Tokenizer) -> Guide | None:
    """The guide of a small model's folder; None where it has none.

    `model` and `tokenizer` are the small model's. `settings.encoder_path` names another place of
    the encoder than the card does.

    Raises:
        ModelFileError: card or projector are damaged, of other sizes, of another encoder or another
            tokenizer; ModelNotFound, UnsupportedModel: of the encoder.
    """
    folder = Path(settings.path)
    if not (folder / PROJECTOR).is_file():
        return None
    card = _read_card(folder / CARD)
    if tokenizer_digest(tokenizer) != card.tokenizer:
        raise _other(folder, "another tokenizer of the small model")
    path = settings.encoder_path or card.encoder
    asked = {"path": path, "tokenizer_path": None, "revision": card.revision, "quantization": None}
    encoder = Encoder(*load_parts(settings.model_copy(update=asked)), card.layer)
    if tokenizer_digest(encoder.tokenizer) != card.encoder_tokenizer:
        raise _other(folder, f"another tokenizer than that of {path}")
    if encoder.digest() != card.encoder_digest:
        raise _other(folder, f"another encoder than {path}")
    projector = _read_projector(folder / PROJECTOR, encoder.size, _width(model))
    return Guide(encoder, projector.to(next(model.parameters()).device), tokenizer)


def _width(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[1])


def _other(folder: Path, what: str) -> ModelFileError:
    return ModelFileError(
        f"{folder / PROJECTOR} was trained with {what}",
        "name the encoder that it was trained with: --set encoder_path=PATH",
    )


def _read_card(path: Path) -> Card:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told.get("format") != FORMAT:
            raise ModelFileError(f"{path} is of format {told.get('format')}, and {FORMAT} is read")
        card = Card(**told)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{path} is no card of a projector: {error}") from error
    if not isinstance(card.layer, int) or not isinstance(card.encoder, str):
        raise ModelFileError(f"{path} is no card of a projector")
    return card


def _read_projector(path: Path, encoder: int, small: int) -> Projector:
    try:
        tensors: Mapping[str, Tensor] = load_file(path)
    except Exception as error:  # of the Rust library, whatever it is
        raise ModelFileError(f"{path} cannot be read: {error}") from error
    hidden = tensors["b1"].shape[0] if "b1" in tensors else 0
    made = Projector(encoder, small, hidden)
    wanted = {name: tuple(x.shape) for name, x in made.state_dict().items()}
    if {name: tuple(x.shape) for name, x in tensors.items()} != wanted:
        raise ModelFileError(
            f"{path} does not fit: {small} and {encoder} are the sizes of the models",
            "train it with these models",
        )
    made.load_state_dict(dict(tensors))
    return made
