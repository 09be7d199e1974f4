"""What cannot be attached or called, by name and with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from infllm.engine.attachment.devices import home
from infllm.engine.errors import EngineError, UnsupportedCall, UnsupportedModel

if TYPE_CHECKING:
    from infllm.engine.attachment.states import Carriers

LONGEST = 160  # characters of an error that is told
ALIBI = "has ALiBi: distances are a bias on the logits, not a rotation"
SOUND = "writes codes of sound for a text, not text"
# Reasons by model type, of what a config does not tell otherwise.
NOT_SERVED = {
    "bloom": ALIBI,
    "blt": "keeps nothing of the patches of bytes that it has read: each pass makes its own",
    "mpt": ALIBI,
    "musicgen": SOUND,
    "musicgen_melody": SOUND,
    "zamba": "reads a text in parts to other logits than whole: its state layers do not go on as "
    "they began (Zamba 2 does)",
}
TOKENS = 11  # of a trial; no other size is likely to be the same


def text_model(model: Any) -> Any:
    """The part of a model that reads text: of one that also sees or hears, its language model."""
    part = model.get_decoder() if hasattr(model, "get_decoder") else model
    whole = not isinstance(part, PreTrainedModel) or part.config is model.config
    return model if whole else part


def refuse_by_config(model: nn.Module) -> None:
    """Raises UnsupportedModel, by name, where it is known before anything is tried."""
    config: Any = getattr(model, "config", None)
    if config is None or not hasattr(model, "set_attn_implementation"):
        raise UnsupportedModel(f"{type(model).__name__} is no transformers model")
    name = type(model).__name__
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModel(f"{name} is an encoder-decoder; only decoders can be attached")
    refuse_config(text_model(model).config, name)


def refuse_config(config: Any, name: str) -> None:
    """Raises UnsupportedModel where the config of the model `name` tells that it is not served."""
    if (reason := NOT_SERVED.get(getattr(config, "model_type", ""))) is not None:
        raise UnsupportedModel(f"{name} {reason}")
    text = config.get_text_config(decoder=True)
    compressed = [kind for kind in getattr(text, "layer_types", None) or () if "compress" in kind]
    if compressed:
        raise UnsupportedModel(
            f"{name} attends to keys that it compresses as it reads ({compressed[0]}): there are "
            "none of single tokens to keep"
        )
    shared = getattr(text, "num_kv_shared_layers", None)
    if shared and shared >= text.num_hidden_layers:
        raise UnsupportedModel(
            f"{name} has no keys of its own: all of its layers attend to those of the model that "
            "it drafts for"
        )
    if getattr(text, "alibi", False):
        raise UnsupportedModel(f"{name} {ALIBI}")


def refuse_learned_positions(model: Any) -> None:
    """Raises UnsupportedModel where reading text looks positions up in a table of vectors."""
    tables = {n: m for n, m in model.named_modules() if _is_position_embedding(n, m)}
    used: list[str] = []
    with ExitStack() as stack:
        for name, module in tables.items():
            hook = module.register_forward_hook(lambda *_, name=name: used.append(name))
            stack.callback(hook.remove)
        if tables:
            _read(model)
    if used:
        raise UnsupportedModel(
            f"{type(model).__name__} has learned positions ({used[0]}): tokens cannot be moved "
            "closer"
        )


def attention_elsewhere(model: Any) -> UnsupportedModel:
    """The error for a model whose attention, if it has any, cannot be reached."""
    with _Attention() as attention:
        _read(model)
    if attention.seen:
        return UnsupportedModel(
            f"the attention of {type(model).__name__} does not go through transformers' attention "
            "interface"
        )
    return UnsupportedModel(
        f"{type(model).__name__} has no softmax attention: all that it keeps of the past is a "
        "state of fixed size, in which no memory can look anything up"
    )


def _read(model: Any) -> None:
    ids = torch.arange(TOKENS, device=home(model))[None]
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)


class _Attention(TorchFunctionMode):
    """Sees whether tokens attend to tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (functional.softmax, torch.softmax, Tensor.softmax):
            self.seen |= args[0].ndim > 2 and args[0].shape[-1] >= TOKENS
        self.seen |= func is functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


def _is_position_embedding(name: str, module: nn.Module) -> bool:
    last = name.rpartition(".")[2]
    known = last in ("wpe", "embed_positions", "position_embeddings", "position_embedding")
    return known and isinstance(module, nn.Embedding)


def refuse_layers_without_state(model: Any, missing: Sequence[int], found: Carriers) -> None:
    """Layers that have neither attention nor a state must be such as need none.

    Raises UnsupportedModel.
    """
    text = text_model(model).config
    kinds = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None)
    elsewhere = bool(found.cache or found.modules)
    odd = [
        i
        for i in missing
        if not (elsewhere or i in found.recurrent or (kinds and kinds[i] in ("mlp", "moe")))
    ]
    if odd:
        raise UnsupportedModel(
            f"{type(model).__name__} has layers without the attention that an engine can serve: "
            f"{', '.join(map(str, odd[:6]))}{' ...' if len(odd) > 6 else ''}"
        )


@contextmanager
def faults_named(model: Any) -> Iterator[None]:
    """Raises UnsupportedModel for whatever goes wrong while a model is tried: no crash."""
    try:
        yield
    except (EngineError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        told = " ".join(str(error).split())[:LONGEST]
        raise UnsupportedModel(
            f"{type(model).__name__} fails when it is tried: {type(error).__name__}: {told}"
        ) from error


def refuse_padding(mask: Any) -> None:
    """Raises UnsupportedCall for an attention mask that hides tokens."""
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise UnsupportedCall("only a two-dimensional attention mask can be used")
    if not bool(mask.bool().all()):
        raise UnsupportedCall(
            "padding cannot be used: the memory has no holes", "give one sequence, without padding"
        )
