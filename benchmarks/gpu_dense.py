"""Full attention by torch, to compare with."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gpu_report import Report

from infllm.cli.tasks.speed import Ceilings, random_ids, seconds_of, synchronize
from infllm.cli.work import reading_work

if TYPE_CHECKING:
    import torch

    from infllm.engine import Engine


def measure_dense(
    model: Any, engine: Engine, report: Report, ceilings: Ceilings, lengths: list[int], most: int
) -> None:
    """Full attention by torch: the whole model to `most` tokens, beyond it one layer."""
    for n in lengths:
        if n <= most:
            report.attempt("dense", "whole model", lambda n=n: whole_model(model, engine, n))
        else:
            report.attempt(
                "dense", "one layer x layers", lambda n=n: one_layer(model, engine, n, report)
            )
        row = report.rows[-1]
        if "seconds" in row:
            spec = model.config.to_dict()
            full = engine.config.with_overrides({"type": "origin"}).model
            work = reading_work(spec, engine.attachment.layers, full, n)
            row["of_floor"] = round(work.total / ceilings.matmul / row["seconds"], 4)
            report.write()


def whole_model(model: Any, engine: Engine, n: int) -> dict[str, Any]:
    """Seconds of one forward pass over n tokens."""
    import torch

    ids = torch.tensor([random_ids(engine, n)], device=engine.device)
    with torch.no_grad(), fast_attention(engine.device):
        model(ids[:, : min(n, 1024)], use_cache=False, logits_to_keep=1)  # warm-up
        synchronize(engine.device)
        began = time.perf_counter()
        model(ids, use_cache=False, logits_to_keep=1)
        synchronize(engine.device)
        seconds = time.perf_counter() - began
    return dense_row(n, seconds)


def one_layer(model: Any, engine: Engine, n: int, report: Report) -> dict[str, Any]:
    """Seconds of the model as one layer's attention over n tokens, and its products with weights
    over one chunk, times the chunks and the layers. Norms, rotation and the rest count as nothing.
    """
    import torch

    layer = engine.attachment.layers[0]
    h, hkv, d = layer.n_heads, layer.n_kv_heads, layer.head_dim
    device, dtype = engine.device, engine.dtype
    block = model.model.layers[0]
    chunk = engine.config.chunk_size
    hidden = torch.randn(1, chunk, model.config.hidden_size, device=device, dtype=dtype)
    heads = torch.randn(1, chunk, h * d, device=device, dtype=dtype)
    inputs = [(part, hidden) for part in (block.self_attn.q_proj, block.self_attn.k_proj,
                                          block.self_attn.v_proj, block.mlp)]  # fmt: skip

    def products() -> None:
        for part, x in (*inputs, (block.self_attn.o_proj, heads)):
            part(x)

    def attention(t: int) -> Callable[[], torch.Tensor]:
        q = torch.randn(1, h, t, d, device=device, dtype=dtype)
        k, v = (torch.randn(1, hkv, t, d, device=device, dtype=dtype) for _ in range(2))
        return lambda: torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=True
        )

    with torch.no_grad(), fast_attention(device):
        linear = seconds_of(products, device)
        # Seconds of a shorter one tell what this one will take.
        expected = seconds_of(attention(n // 8), device) * 64
        if expected > report.seconds_left:
            return {"tokens": n, "skipped": f"about {expected:.0f} s, no time left"}
        run = attention(n)
        synchronize(device)
        began = time.perf_counter()
        run()
        synchronize(device)
        attended = time.perf_counter() - began
    layers = len(engine.attachment.layers)
    seconds = layers * (attended + linear * n / chunk)
    return dense_row(n, seconds) | {
        "one_layer_times_layers": layers,
        "layer_attention_seconds": attended,
        "layer_linear_seconds": linear * n / chunk,
    }


def dense_row(n: int, seconds: float) -> dict[str, Any]:
    return {
        "tokens": n,
        "seconds": round(seconds, 4),
        "tokens_per_second": round(n / seconds, 1),
    }


def fast_attention(device: torch.device) -> Any:
    """On a GPU, torch's attention without the slow backend that keeps all logits."""
    from contextlib import nullcontext

    from torch.nn.attention import SDPBackend, sdpa_kernel

    if device.type != "cuda":
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION])
