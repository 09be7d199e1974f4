"""Interpreted: descent into intervals, against the reference."""

from __future__ import annotations

import pytest
import torch

from infllm.kernels import descent as reference
from infllm.kernels.descent import Intervals, KeyRows
from infllm.kernels.quantize import quantize
from infllm.kernels.rotate import Layout, Rope
from infllm.kernels.triton.descent import descend
from tests.kernels.parts import generator, normal

PAGE = 16


def key_rows(tokens: int, heads: int, dim: int, kv_dtype: str = "fp32") -> KeyRows:
    """Pages in any order in a pool with others."""
    n_pages = -(-tokens // PAGE)
    codes, scale = quantize(normal((n_pages + 3) * PAGE, heads, dim, seed=1), kv_dtype)
    table = torch.randperm(n_pages + 3, generator=generator(2))[:n_pages]
    return KeyRows(codes, scale, table, PAGE)


def intervals(blocks: int, n: int, size: int, tokens: int) -> Intervals:
    """Some of the grid, ascending; in the first block a few are too late."""
    of_all = torch.arange(tokens // size) * size
    some = [
        of_all[torch.randperm(len(of_all), generator=generator(3 + e))[:n]] for e in range(blocks)
    ]
    left = torch.stack(some).sort(dim=1).values
    last_left = torch.tensor([tokens // 2] + [tokens] * (blocks - 1))
    return Intervals(left, size, last_left, torch.full((blocks,), tokens - 1))


def check(
    query: torch.Tensor, keys: KeyRows, some: Intervals,
    turn: torch.Tensor | None = None, layout: Layout = "half",
) -> None:  # fmt: skip
    score, token = descend(query, keys, some, turn, layout)
    want, want_token = reference.descend(query, keys, some, turn, layout)
    active = want > reference.INACTIVE
    assert torch.equal(score > reference.INACTIVE, active)
    torch.testing.assert_close(score[active], want[active], atol=1e-4, rtol=1e-5)
    assert torch.equal(token[active], want_token[active])


@pytest.mark.parametrize("size", [1, 2, 7, 32])
@pytest.mark.parametrize(("blocks", "n", "rows"), [(1, 1, 1), (3, 5, 16), (2, 40, 33)])
def test_descent(size: int, blocks: int, n: int, rows: int) -> None:
    tokens = 50 * size
    query = normal(2, blocks, 4, rows, 80, seed=7)
    check(query, key_rows(tokens, 2, 80), intervals(blocks, n, size, tokens))


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("pairs", [0, 8, 16])
@pytest.mark.parametrize("kv_dtype", ["fp32", "int8"])
def test_keys_rotated_by_their_interval(layout: Layout, pairs: int, kv_dtype: str) -> None:
    rope = Rope(100.0 ** (-torch.arange(pairs, dtype=torch.float64) / max(1, pairs)), 1.1, layout)
    query = normal(1, 2, 4, 9, 32, seed=7).expand(2, -1, -1, -1, -1)
    turn = torch.stack(rope.cos_sin(torch.arange(20)))
    check(query, key_rows(400, 2, 32, kv_dtype), intervals(2, 20, 8, 400), turn, layout)


def test_no_key_behind_the_last_is_looked_at() -> None:
    keys = key_rows(64, 1, 16)
    some = Intervals(torch.tensor([[0, 32]]), 32, torch.tensor([40]), torch.tensor([50]))
    hidden = keys.rows(torch.arange(51, 64))
    keys.keys[hidden] = float("nan")
    query = normal(2, 1, 2, 4, 16, seed=5)
    check(query, keys, some)
    assert torch.isfinite(reference.descend(query, keys, some)[0]).all()


def test_nothing_to_descend_into() -> None:
    some = Intervals(torch.empty(2, 0, dtype=torch.int64), 8, torch.zeros(2), torch.zeros(2))
    score, token = descend(normal(2, 2, 4, 3, 16), key_rows(16, 2, 16), some)
    assert score.shape == token.shape == (2, 4, 0)
