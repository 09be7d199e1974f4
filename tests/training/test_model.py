"""The training forward pass is the model's own, and the far rule is the memory's."""

import pytest
import torch
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from training.export import export
from training.model import hidden_states, pocket_config
from training.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(pocket_config(1600, 0, 1, 2)).eval()


def test_plain_attention_is_the_stock_model(model):
    ids = torch.randint(0, 1600, (2, 65))
    with torch.no_grad():
        ours = model.lm_head(hidden_states(model, ids))
        torch.testing.assert_close(ours, model(ids).logits, atol=1e-5, rtol=1e-5)


def test_a_window_that_holds_everything_changes_nothing(model):
    ids = torch.randint(0, 1600, (1, 65))
    with torch.no_grad():
        torch.testing.assert_close(hidden_states(model, ids, window=65), hidden_states(model, ids))


def test_near_tokens_are_exact_under_the_far_rule(model):
    ids = torch.randint(0, 1600, (1, 60))
    with torch.no_grad():
        plain, far = hidden_states(model, ids), hidden_states(model, ids, window=32)
    torch.testing.assert_close(far[:, :32], plain[:, :32], atol=1e-5, rtol=1e-5)
    assert (far[:, 40:] - plain[:, 40:]).abs().max() > 1e-4


def test_far_keys_are_unrotated_at_one_distance(model):
    """One layer by hand: each query and key rotated to the pair's distance, one at a time."""
    torch.manual_seed(1)
    attention, window, length = model.model.layers[0].self_attn, 5, 12
    x = torch.randn(1, length, model.config.hidden_size)
    positions = torch.arange(length)[None]
    cos, sin = model.model.rotary_emb(x, positions)

    from training.model import _attention

    with torch.no_grad():
        got = _attention(attention, x, cos, sin, window)
        q = attention.q_proj(x).view(1, length, 4, 64).transpose(1, 2)
        k = attention.k_proj(x).view(1, length, 2, 64).transpose(1, 2).repeat_interleave(2, 1)
        v = attention.v_proj(x).view(1, length, 2, 64).transpose(1, 2).repeat_interleave(2, 1)
        out = torch.zeros(1, length, 4, 64)
        for i in range(length):
            logits = torch.zeros(4, i + 1)
            for j in range(i + 1):
                distance = min(i - j, window - 1)
                turned, _ = apply_rotary_pos_emb(
                    q[:, :, i : i + 1],
                    q[:, :, i : i + 1],
                    cos[:, distance : distance + 1],
                    sin[:, distance : distance + 1],
                )
                logits[:, j] = (turned[0, :, 0] * k[0, :, j]).sum(-1) / 8
            out[0, i] = torch.einsum("hj,hjd->hd", logits.softmax(-1), v[0, :, : i + 1])
        expected = attention.o_proj(out.reshape(1, length, 256))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_the_exported_folder_loads_by_auto_classes(model, tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export(model, tokenizer, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert AutoTokenizer.from_pretrained(tmp_path)("kalo 12").input_ids == (
        load_tokenizer(tmp_path)("kalo 12").input_ids
    )
    ids = torch.randint(0, 1600, (1, 20))
    with torch.no_grad():
        drift = (loaded(ids).logits - model(ids).logits).abs().max()
    assert drift < 0.02  # bfloat16 rounding of the weights
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id
    assert next(model.parameters()).dtype == torch.float32
