"""Loading of a tile of keys or values: through a block table, dequantised, rotated."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def key_places(table, start, n_keys, PAGE: tl.constexpr, BLOCK_N: tl.constexpr):
    """Where keys `start` to `start + BLOCK_N - 1` lie.

    Returns their page, the place of that page in the table, and their place in the page:
    scalars or [BLOCK_N]. Dense keys (PAGE = 0) are one page, number 0.
    """
    key = (start + tl.arange(0, BLOCK_N)).to(tl.int64)
    if PAGE == 0:
        entry = tl.zeros([], tl.int64)
        page = entry
        place = key
    elif PAGE % BLOCK_N == 0:  # the tile lies in one page
        entry = start // PAGE
        page = tl.load(table + entry)
        place = key % PAGE
    else:
        entry = key // PAGE
        page = tl.load(table + entry, mask=key < n_keys, other=0)
        place = key % PAGE
    return page, entry, place


@triton.jit
def load_rows(
    base, page, place, seen, scale_base, page_stride, row_stride, scale_page, scale_row,
    DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, MASKED: tl.constexpr, SCALED: tl.constexpr,
    COLUMN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Rows [BLOCK_N, BLOCK_DIM] of one head, zero outside of `seen` [BLOCK_N] and DIM.

    COLUMN: what to load at each dimension: 0 itself, r > 0 its partner in a half-split rotation of
    r dimensions, r < 0 in an interleaved one. float32 where SCALED or WIDE, else as stored.
    """
    d = tl.arange(0, BLOCK_DIM)
    column = d
    if COLUMN > 0:
        half = COLUMN // 2
        column = tl.where(d < half, d + half, tl.where(d < COLUMN, d - half, d))
    elif COLUMN < 0:
        column = tl.where(d < -COLUMN, d ^ 1, d)
    row = page * page_stride + place * row_stride  # int64: a pool may hold more than 2**31 values
    pointer = base + row[:, None] + column[None, :]
    if MASKED and BLOCK_DIM != DIM:
        x = tl.load(pointer, mask=seen[:, None] & (d < DIM)[None, :], other=0.0)
    elif MASKED:
        x = tl.load(pointer, mask=seen[:, None], other=0.0)
    elif BLOCK_DIM != DIM:
        x = tl.load(pointer, mask=(d < DIM)[None, :], other=0.0)
    else:
        x = tl.load(pointer)
    if SCALED:
        scale = tl.load(scale_base + page * scale_page + place * scale_row, mask=seen, other=0.0)
        x = x.to(tl.float32) * scale[:, None]
    elif WIDE:
        x = x.to(tl.float32)
    return x


@triton.jit
def load_table(
    base, index, ROTARY: tl.constexpr, INTERLEAVED: tl.constexpr, BLOCK_DIM: tl.constexpr, other
):
    """Rows `index` (a scalar or [BLOCK_N]) of a table of ROTARY // 2 angles, spread to the
    dimensions that they rotate: [1 or BLOCK_N, BLOCK_DIM], `other` where nothing is rotated."""
    d = tl.arange(0, BLOCK_DIM)
    angle = d // 2 if INTERLEAVED else d % (ROTARY // 2)
    row = (tl.zeros([1], tl.int64) + index) * (ROTARY // 2)
    return tl.load(base + row[:, None] + angle[None, :], mask=(d < ROTARY)[None, :], other=other)


@triton.jit
def load_keys(
    base, page, entry, place, seen, scale_base, page_stride, row_stride, scale_page, scale_row,
    page_cos, page_sin, place_cos, place_sin,
    DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, MASKED: tl.constexpr, SCALED: tl.constexpr,
    ROTARY: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    """Keys [BLOCK_N, BLOCK_DIM] as they are attended, float32 where SCALED or rotated.

    A key's angle is that of its page's first key (page_cos, page_sin, by `entry`) plus that of its
    place (place_cos, place_sin): both tables come from float64 angles, so that no position is too
    large, and the kernel needs no float64.
    """
    x = load_rows(
        base, page, place, seen, scale_base, page_stride, row_stride, scale_page, scale_row,
        DIM, BLOCK_DIM, MASKED, SCALED, 0, ROTARY > 0,
    )  # fmt: skip
    if ROTARY > 0:
        COLUMN: tl.constexpr = -ROTARY if INTERLEAVED else ROTARY
        partner = load_rows(
            base, page, place, seen, scale_base, page_stride, row_stride, scale_page, scale_row,
            DIM, BLOCK_DIM, MASKED, SCALED, COLUMN, True,
        )  # fmt: skip
        row = tl.where(seen, place, 0)
        cos_a = load_table(page_cos, entry, ROTARY, INTERLEAVED, BLOCK_DIM, 1.0)
        sin_a = load_table(page_sin, entry, ROTARY, INTERLEAVED, BLOCK_DIM, 0.0)
        cos_b = load_table(place_cos, row, ROTARY, INTERLEAVED, BLOCK_DIM, 1.0)
        sin_b = load_table(place_sin, row, ROTARY, INTERLEAVED, BLOCK_DIM, 0.0)
        d = tl.arange(0, BLOCK_DIM)
        first = d % 2 == 0 if INTERLEAVED else d < ROTARY // 2
        turn = sin_a * cos_b + cos_a * sin_b
        x = x * (cos_a * cos_b - sin_a * sin_b) + partner * tl.where(first[None, :], -turn, turn)
    return x
