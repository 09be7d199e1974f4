"""The built-in model's shape, and a forward pass that can train on the memory's distances."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb


def pocket_config(vocab_size: int, begin: int, end: int, pad: int) -> LlamaConfig:
    """About 4M parameters: 4 layers of width 256, 4 query heads on 2 key-value heads."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=begin,
        eos_token_id=end,
        pad_token_id=pad,
    )


def hidden_states(model: LlamaForCausalLM, ids: Tensor, window: int | None = None) -> Tensor:
    """Final hidden states [B, T, hidden] of `ids` [B, T].

    window: None for plain causal attention. A number gives the rule under which the memory shows
    old tokens: keys `window` or more tokens back are seen un-rotated at the one distance
    `window - 1` (InfLLM, arXiv 2402.04617, section 3.2).
    """
    body = model.model
    positions = torch.arange(ids.shape[1], device=ids.device)
    x = body.embed_tokens(ids)
    cos, sin = body.rotary_emb(x, positions[None])
    for layer in body.layers:
        x = x + _attention(layer.self_attn, layer.input_layernorm(x), cos, sin, window)
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return body.norm(x)


def _attention(
    module: torch.nn.Module, x: Tensor, cos: Tensor, sin: Tensor, window: int | None
) -> Tensor:
    batch, length, _ = x.shape
    split = (batch, length, -1, module.head_dim)
    q = module.q_proj(x).view(split).transpose(1, 2)  # [B, H, T, D]
    k = module.k_proj(x).view(split).transpose(1, 2)  # [B, KV, T, D]
    v = module.v_proj(x).view(split).transpose(1, 2)
    q_near, k_near = apply_rotary_pos_emb(q, k, cos.to(q.dtype), sin.to(q.dtype))
    groups = module.num_key_value_groups
    if window is None or window >= length:
        out = F.scaled_dot_product_attention(
            q_near,
            k_near.repeat_interleave(groups, 1),
            v.repeat_interleave(groups, 1),
            is_causal=True,
        )
    else:
        far = slice(window - 1, window)
        q_far = apply_rotary_pos_emb(q, k, cos[:, far].to(q.dtype), sin[:, far].to(q.dtype))[0]
        out = _two_distance_attention(q_near, k_near, q_far, k, v, window)
    return module.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


def _two_distance_attention(
    q_near: Tensor, k_near: Tensor, q_far: Tensor, k: Tensor, v: Tensor, window: int
) -> Tensor:
    """[B, H, T, D]: one softmax over keys nearer than `window` (rotated) and all older ones.

    Goes by blocks of `window` queries: each sees its own block and the one before it near, and
    all blocks before its own far.
    """
    batch, heads, length, dim = q_near.shape
    kv_heads = k.shape[1]
    group = heads // kv_heads

    def rows(q: Tensor) -> Tensor:
        """Query heads that share a key-value head become rows of one matrix product."""
        return q.reshape(batch, kv_heads, -1, dim)

    blocks = []
    for start in range(0, length, window):
        stop = min(start + window, length)
        low = max(0, start - window + 1)
        queries = torch.arange(start, stop, device=k.device)[:, None]
        keys = torch.arange(low, stop, device=k.device)
        distance = (queries - keys).repeat(group, 1)
        near = rows(q_near[:, :, start:stop]) @ k_near[:, :, low:stop].transpose(-1, -2)
        near = near.masked_fill((distance < 0) | (distance >= window), float("-inf"))
        older = stop - window  # keys before this one are far for the block's last query
        if older > 0:
            far = rows(q_far[:, :, start:stop]) @ k[:, :, :older].transpose(-1, -2)
            is_near = queries - torch.arange(low, older, device=k.device) < window
            far[..., low:].masked_fill_(is_near.repeat(group, 1), float("-inf"))
            near = torch.cat([far, near], dim=-1)
        weights = torch.softmax(near * dim**-0.5, dim=-1, dtype=torch.float32).to(v.dtype)
        out = weights[..., max(older, 0) :] @ v[:, :, low:stop]
        if older > 0:
            out = out + weights[..., :older] @ v[:, :, :older]
        blocks.append(out.view(batch, heads, stop - start, dim))
    return torch.cat(blocks, dim=2)
