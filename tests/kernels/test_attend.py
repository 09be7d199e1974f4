"""Joint attention: every path equals one softmax in float64, at awkward sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from infllm.kernels import attend_cpu
from infllm.kernels.attend import attend, attend_reference
from infllm.kernels.partial_attention import Band, Part
from infllm.kernels.quantize import dequantize, quantize
from infllm.kernels.rotate import Rope, rotate
from tests.kernels.parts import Shape, normal, one_shot, rms_error

PATHS = {"fused": 10**12, "flash": -1, "reference": None}  # and the threshold that leads there
CLOSE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}  # relative RMS


def every_path(
    monkeypatch: pytest.MonkeyPatch, parts: list[Part], scale: float, **more: object
) -> dict[str, torch.Tensor]:
    """Outputs of the reference and of what a CPU takes below and above its threshold."""
    return {path: on_path(monkeypatch, path, parts, scale, **more)[0] for path in PATHS}


def on_path(
    monkeypatch: pytest.MonkeyPatch, path: str, parts: list[Part], scale: float, **more: object
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    if path == "reference":
        return attend_reference(parts, scale, **more)  # type: ignore[arg-type]
    monkeypatch.setattr(attend_cpu, "FUSED_LOGITS", PATHS[path])
    return attend(parts, scale, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [1, 7, 63, 65, 128, 1000])
@pytest.mark.parametrize("t", [1, 3, 16])
def test_window_at_awkward_sizes(monkeypatch: pytest.MonkeyPatch, n: int, t: int) -> None:
    shape = Shape(t=t)
    q = shape.query()
    # The last query stands on the last key; the window is a third of the keys. Queries that stand
    # before the first key see the two keys of the other part alone.
    parts = [shape.dense(n, q, band=Band(n - t, 0, max(1, n // 3))), shape.dense(2, q, seed=30)]
    want, _ = one_shot(parts, 0.25)
    for path, o in every_path(monkeypatch, parts, 0.25).items():
        assert rms_error(o, want) < CLOSE[torch.float32], path


@pytest.mark.parametrize(("h", "hkv"), [(4, 4), (4, 2), (4, 1), (6, 2)])
@pytest.mark.parametrize("d", [16, 64, 80])
def test_parts_share_one_softmax(monkeypatch: pytest.MonkeyPatch, h: int, hkv: int, d: int) -> None:
    shape = Shape(h=h, hkv=hkv, t=5, d=d)
    near, far = shape.query(0), shape.query(1)
    parts = [
        shape.dense(37, near, seed=10, band=Band(32, 0, 16)),
        shape.dense(4, far, seed=12),
        shape.paged(far, n_pages=3, page=8, seed=14),
        shape.dense(22, far, seed=16, band=Band(32, 16)),
    ]
    want, _ = one_shot(parts, d**-0.5)
    for path, o in every_path(monkeypatch, parts, d**-0.5).items():
        assert rms_error(o, want) < CLOSE[torch.float32], path


@pytest.mark.parametrize(("h", "hkv"), [(4, 4), (4, 2), (4, 1)])
def test_a_table_for_each_query_head(monkeypatch: pytest.MonkeyPatch, h: int, hkv: int) -> None:
    shape = Shape(h=h, hkv=hkv, t=3)
    q = shape.query()
    parts = [shape.dense(9, q, band=Band(6, 0)), shape.paged(q, 5, 8, groups=h)]
    assert not torch.equal(parts[1].table[0, 0], parts[1].table[0, 1])  # type: ignore[index]
    want, _ = one_shot(parts, 0.3)
    for path, o in every_path(monkeypatch, parts, 0.3).items():
        assert rms_error(o, want) < CLOSE[torch.float32], path


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n", [7, 65, 300])
def test_half_precision_inputs(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, n: int) -> None:
    shape = Shape(t=3, d=64, dtype=dtype)
    q = shape.query()
    parts = [shape.dense(n, q, band=Band(n - 3, 0, 50)), shape.paged(q, 2, 8)]
    want, _ = one_shot(parts, 0.125)
    for path, o in every_path(monkeypatch, parts, 0.125).items():
        assert o.dtype == dtype
        assert rms_error(o, want) < CLOSE[dtype], path


def test_softcap_and_sinks(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape(t=3)
    q = 4 * shape.query()
    parts = [shape.dense(65, q, band=Band(62, 0)), shape.paged(q, 2, 8)]
    sink = 8 + normal(4, seed=5)
    cases: list[dict[str, object]] = [
        {"softcap": 5.0}, {"sink": sink}, {"softcap": 5.0, "sink": sink},
    ]  # fmt: skip
    plain, _ = one_shot(parts, 0.25)
    for more in cases:
        want, _ = one_shot(parts, 0.25, **more)  # type: ignore[arg-type]
        assert rms_error(plain, want) > 1e-2
        for path, o in every_path(monkeypatch, parts, 0.25, **more).items():
            assert rms_error(o, want) < CLOSE[torch.float32], (path, more)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_mass_is_the_weight_of_the_joint_softmax(
    monkeypatch: pytest.MonkeyPatch, path: str, softcap: float | None
) -> None:
    shape = Shape(t=5)
    q, far = shape.query(0), shape.query(1)
    parts = [
        shape.dense(23, q, seed=10, band=Band(18, 0, 9), mass="column"),
        shape.paged(far, 3, 8, seed=14, mass="page"),
        shape.dense(6, far, seed=16),
    ]
    o, masses = on_path(monkeypatch, path, parts, 0.25, softcap=softcap)
    want, weights = one_shot(parts, 0.25, softcap)
    assert rms_error(o, want) < CLOSE[torch.float32]
    assert masses[2] is None
    torch.testing.assert_close(masses[0][0].double(), weights[0].sum(dim=1), atol=1e-5, rtol=0)
    pages = weights[1].sum(dim=1).view(4, 3, 8).sum(dim=-1)
    torch.testing.assert_close(masses[1][0].double(), pages, atol=1e-5, rtol=0)


@pytest.mark.parametrize("path", PATHS)
def test_page_mass_of_tables_per_head(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    shape = Shape(t=2)
    q = shape.query()
    parts = [shape.dense(4, q), shape.paged(q, 3, 8, groups=4, mass="page")]
    _, masses = on_path(monkeypatch, path, parts, 0.25)
    _, weights = one_shot(parts, 0.25)
    pages = weights[1].sum(dim=1).view(4, 3, 8).sum(dim=-1)
    torch.testing.assert_close(masses[1][0].double(), pages, atol=1e-5, rtol=0)


@pytest.mark.parametrize("t", [512, 300])
def test_masses_of_a_long_window(monkeypatch: pytest.MonkeyPatch, t: int) -> None:
    """Longer than one step of the second pass, with keys hidden at both ends."""
    shape = Shape(h=4, hkv=2, t=t, d=16)
    q, far = shape.query(0), shape.query(1)
    near = shape.dense(900 + t, q, band=Band(900, 0, 900), mass="column")
    parts = [near, shape.paged(far, 3, 8, seed=14, mass="page")]
    _, weights = one_shot(parts, 0.25)
    _, masses = on_path(monkeypatch, "flash", parts, 0.25)
    assert masses[0] is not None
    torch.testing.assert_close(masses[0][0].double(), weights[0].sum(dim=1), atol=2e-5, rtol=0)


def test_a_part_that_one_query_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """The far part of a block whose first queries have nothing behind their window yet."""
    shape = Shape(t=6)
    q = shape.query()
    parts = [shape.dense(6, q, band=Band(0, 0)), shape.dense(3, q, seed=30, band=Band(0, 4))]
    want, _ = one_shot(parts, 0.25)
    for path, o in every_path(monkeypatch, parts, 0.25).items():
        assert torch.isfinite(o).all(), path
        assert rms_error(o, want) < CLOSE[torch.float32], path


@pytest.mark.parametrize("at", [0, 7, 19])
def test_bands_shifted_by_what_the_device_knows(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """A decode step: room for 20 keys, the newest at `at`, and what lies behind its window."""
    shape = Shape(t=1)
    q, shift = shape.query(), torch.tensor([at])
    near = shape.dense(20, q, band=Band(0, 0, 9), shift=shift, mass="column")
    behind = shape.dense(12, q, seed=30, band=Band(0, 9), shift=shift)
    parts = [near, behind, shape.paged(q, 2, 8)]
    want, weights = one_shot(parts, 0.25)
    plain = [replace(part, mass=None) for part in parts]
    for path, o in every_path(monkeypatch, plain, 0.25).items():
        assert rms_error(o, want) < CLOSE[torch.float32], path
    for attend_so in (attend, attend_reference):
        _, masses = attend_so(parts, 0.25)
        assert masses[0] is not None
        torch.testing.assert_close(masses[0][0].double(), weights[0].sum(dim=1), atol=1e-5, rtol=0)


def test_causal_attention_is_torch_sdpa(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape(h=4, hkv=2, t=65, d=64)
    q = shape.query()
    part = shape.dense(65, q, band=Band(0, 0))
    want = torch.nn.functional.scaled_dot_product_attention(
        q.double(), part.k.double(), part.v.double(), is_causal=True, enable_gqa=True
    )
    for path, o in every_path(monkeypatch, [part], 64**-0.5).items():
        assert rms_error(o, want) < CLOSE[torch.float32], path


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("groups", [1, 4])
def test_keys_rotated_while_loading(
    monkeypatch: pytest.MonkeyPatch, layout: str, groups: int
) -> None:
    """`rope` and `first` equal keys rotated before, also far to the left of the origin."""
    shape = Shape(t=3)
    rope = Rope(100.0 ** (-torch.arange(6, dtype=torch.float64) / 6), 1.1, layout)  # type: ignore[arg-type]
    q = shape.query()
    paged = shape.paged(q, 3, 8, groups=groups)
    assert paged.table is not None
    first = -1000 - 37 * torch.arange(groups * 3).view(1, groups, 3)
    lazy = Part(q, paged.k, paged.v, table=paged.table, rope=rope, first=first)
    dense = shape.dense(9, q, seed=40)
    lazy_dense = Part(q, dense.k, dense.v, rope=rope, first=torch.tensor(-2000))
    # The same, with a page for each place of the table and each head rotated beforehand.
    pages, tables = [], []
    for g in range(groups):
        for i in range(3):
            position = first[0, g, i] + torch.arange(8)
            k = paged.k[paged.table[0, g, i]]
            tables.append(len(pages))
            pages.append(
                (rotate(k, *rope.cos_sin(position), rope.layout), paged.v[paged.table[0, g, i]])
            )
    eager = Part(
        q, torch.stack([k for k, _ in pages]), torch.stack([v for _, v in pages]),
        table=torch.tensor(tables).view(1, groups, 3),
    )  # fmt: skip
    turned = rotate(dense.k, *rope.cos_sin(torch.arange(-2000, -1991)), rope.layout)
    want, _ = one_shot([eager, Part(q, turned, dense.v)], 0.25)
    for path, o in every_path(monkeypatch, [lazy, lazy_dense], 0.25).items():
        assert rms_error(o, want) < CLOSE[torch.float32], path


def test_batches_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape(t=3)
    rows = []
    for seed in (0, 100):
        q = shape.query(seed)
        rows.append((q, shape.dense(9, q, seed=seed + 1), shape.paged(q, 2, 8, seed=seed + 3)))
    q = torch.cat([row[0] for row in rows])
    shift = rows[0][2].k.shape[0]
    tables = [rows[0][2].table, rows[1][2].table + shift]  # type: ignore[operator]
    parts = [
        Part(
            q, torch.cat([r[1].k for r in rows]), torch.cat([r[1].v for r in rows]),
            band=Band(6, 0),
        ),
        Part(
            q, torch.cat([r[2].k for r in rows]), torch.cat([r[2].v for r in rows]),
            table=torch.cat(tables), mass="page",  # type: ignore[arg-type]
        ),
    ]  # fmt: skip
    for path in PATHS:
        o, masses = on_path(monkeypatch, path, parts, 0.25)
        for b, (own, dense, paged) in enumerate(rows):
            alone = [
                Part(own, dense.k, dense.v, band=Band(6, 0)),
                Part(own, paged.k, paged.v, table=paged.table, mass="page"),
            ]
            want, want_masses = on_path(monkeypatch, path, alone, 0.25)
            torch.testing.assert_close(o[b], want[0])
            torch.testing.assert_close(masses[1][b], want_masses[1][0])


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
def test_codes_are_worth_what_they_stand_for(
    monkeypatch: pytest.MonkeyPatch, kv_dtype: str
) -> None:
    shape = Shape(t=3)
    q = shape.query()
    coded, plain = [], []
    for part in (shape.dense(20, q, band=Band(17, 0)), shape.paged(q, 3, 8, groups=4)):
        (k, k_scale), (v, v_scale) = quantize(part.k, kv_dtype), quantize(part.v, kv_dtype)
        coded.append(replace(part, k=k, v=v, k_scale=k_scale, v_scale=v_scale))
        values = (dequantize(x, s, q.dtype) for x, s in ((k, k_scale), (v, v_scale)))
        plain.append(replace(part, **dict(zip("kv", values, strict=True))))
    want, _ = one_shot(plain, 0.25)
    for path, o in every_path(monkeypatch, coded, 0.25).items():
        assert rms_error(o, want) < CLOSE[torch.float32], path
