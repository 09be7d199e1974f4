"""Rotation of queries and keys, against transformers' own and against its own algebra."""

from __future__ import annotations

import math

import pytest
import torch
from transformers.models.cohere.modeling_cohere import apply_rotary_pos_emb as cohere_rotation
from transformers.models.glm.modeling_glm import apply_rotary_pos_emb as glm_rotation
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as llama_rotation

from infllm.kernels.rotate import Layout, Rope, rotate
from infllm.kernels.rotate_append import rotate_append
from tests.kernels.parts import normal, rms_error


def frequencies(n: int, base: float = 10000.0) -> torch.Tensor:
    return base ** (-torch.arange(n, dtype=torch.float64) / n)


def test_half_split_is_the_rotation_of_llama() -> None:
    q, k = normal(1, 4, 9, 16), normal(1, 2, 9, 16, seed=1)
    rope = Rope(frequencies(8))
    cos, sin = rope.cos_sin(torch.arange(9))
    wide_cos, wide_sin = (torch.cat([x, x], dim=-1)[None] for x in (cos, sin))
    for x, want in zip((q, k), llama_rotation(q, k, wide_cos, wide_sin), strict=True):
        torch.testing.assert_close(rotate(x, cos, sin), want, atol=1e-6, rtol=0)


def test_interleaved_is_the_rotation_of_cohere() -> None:
    q, k = normal(1, 4, 9, 16), normal(1, 2, 9, 16, seed=1)
    rope = Rope(frequencies(8), layout="interleaved")
    cos, sin = rope.cos_sin(torch.arange(9))
    wide_cos, wide_sin = (x.repeat_interleave(2, dim=-1)[None] for x in (cos, sin))
    for x, want in zip((q, k), cohere_rotation(q, k, wide_cos, wide_sin), strict=True):
        got = rotate(x, cos, sin, "interleaved")
        torch.testing.assert_close(got, want, atol=1e-6, rtol=0)


def test_partial_interleaved_is_the_rotation_of_glm() -> None:
    q, k = normal(1, 4, 9, 16), normal(1, 2, 9, 16, seed=1)
    rope = Rope(frequencies(4), layout="interleaved")  # rotates 8 of 16 dimensions
    cos, sin = rope.cos_sin(torch.arange(9))
    wide_cos, wide_sin = (torch.cat([x, x], dim=-1)[None] for x in (cos, sin))
    for x, want in zip((q, k), glm_rotation(q, k, wide_cos, wide_sin), strict=True):
        got = rotate(x, cos, sin, "interleaved")
        torch.testing.assert_close(got, want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("pairs", [0, 3, 8])
def test_rotating_back_gives_the_same_vector(layout: Layout, pairs: int) -> None:
    rope = Rope(frequencies(pairs) if pairs else torch.zeros(0, dtype=torch.float64), layout=layout)
    x = normal(2, 3, 7, 16)
    positions = torch.tensor([0, 1, 5, 63, 1000, 65_537, 10_000_000])
    there = rotate(x, *rope.cos_sin(positions), layout)
    back = rotate(there, *rope.cos_sin(-positions), layout)
    torch.testing.assert_close(back, x, atol=1e-5, rtol=0)
    assert torch.equal(there[..., 2 * pairs :], x[..., 2 * pairs :])
    assert torch.equal(there[:, :, 0], x[:, :, 0])  # position 0 rotates nothing
    if pairs == 0:
        assert torch.equal(there, x)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_only_distances_matter(layout: Layout) -> None:
    rope = Rope(frequencies(8), layout=layout)
    q, k = normal(1, 1, 1, 16), normal(1, 1, 1, 16, seed=1)

    def product(p: int, j: int) -> float:
        a = rotate(q, *rope.cos_sin(torch.tensor([p])), layout)
        b = rotate(k, *rope.cos_sin(torch.tensor([j])), layout)
        return float((a.double() * b.double()).sum())

    for shift in (1, 999, 10_000_000):
        assert product(40 + shift, 3 + shift) == pytest.approx(product(40, 3), abs=1e-5)
    assert abs(product(40, 3) - product(41, 3)) > 1e-3


def test_angles_of_ten_million_are_exact() -> None:
    """The naive float32 angle is wrong by tenths of a radian there."""
    freq = frequencies(8)
    position = 10_000_019
    cos, sin = Rope(freq).cos_sin(torch.tensor([position]))
    for i, f in enumerate(freq.tolist()):
        angle = math.fmod(position * f, 2 * math.pi)
        assert float(cos[0, i]) == pytest.approx(math.cos(angle), abs=1e-6)
        assert float(sin[0, i]) == pytest.approx(math.sin(angle), abs=1e-6)
    naive = (torch.tensor([position], dtype=torch.float32)[:, None] * freq.float()).cos()
    assert float((naive - cos).abs().max()) > 0.02


def test_scale_multiplies_the_rotated_dimensions_only() -> None:
    rope, scaled = Rope(frequencies(4)), Rope(frequencies(4), scale=1.25)
    x, positions = normal(1, 2, 5, 16), torch.arange(5)
    plain, got = (rotate(x, *r.cos_sin(positions)) for r in (rope, scaled))
    torch.testing.assert_close(got[..., :8], 1.25 * plain[..., :8])
    assert torch.equal(got[..., 8:], x[..., 8:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes_keep_their_own_precision(dtype: torch.dtype) -> None:
    x = normal(1, 2, 5, 16).to(dtype)
    table = Rope(frequencies(8)).cos_sin(torch.arange(5))
    got = rotate(x, *table)
    want = rotate(x.double(), *(t.double() for t in table))
    assert got.dtype == dtype
    limit = {torch.bfloat16: 4e-3, torch.float16: 5e-4, torch.float64: 1e-12}[dtype]
    assert rms_error(got, want) < limit


def test_a_ring_holds_the_most_recent_keys_rotated() -> None:
    rope, ring = Rope(frequencies(8)), torch.zeros(1, 2, 9, 16)
    x, taken = normal(1, 2, 25, 16), 0
    for size in (4, 1, 9, 7, 4):
        some, positions = x[:, :, taken : taken + size], torch.arange(taken, taken + size)
        rotate_append(some, *rope.cos_sin(positions), ring, torch.tensor(taken))
        taken += size
    want = rotate(x, *rope.cos_sin(torch.arange(25)))
    for position in range(25 - 9, 25):
        assert torch.equal(ring[:, :, position % 9], want[:, :, position])
