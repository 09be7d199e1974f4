"""Moments of units' keys, and the mass that they tell of."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from infllm.kernels import unit_moments as module
from infllm.kernels.unit_mass import log_mass, unit_lse
from infllm.kernels.unit_moments import moment_mass, parts_of, unit_moments, whole_moments
from tests.kernels.parts import normal


def told(k: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Moments of keys [n, B, Hkv, block, D], as one run [B, Hkv, n * parts, D] each."""
    mean, variance = (x.permute(1, 2, 0, 3, 4).flatten(2, 3) for x in unit_moments(k))
    return [mean], [variance]


def exactly(q: Tensor, beside: Tensor, k: Tensor, scale: float, softcap: float | None) -> Tensor:
    return log_mass(unit_lse(q, [k], None, scale, softcap), beside, 1)[:, 0].exp()


@pytest.mark.parametrize(
    ("block", "parts"), [(1, 1), (7, 1), (9, 3), (10, 2), (4, 4), (64, 4), (128, 4)]
)
def test_parts_are_as_many_as_may_be_and_alike(block: int, parts: int) -> None:
    assert parts_of(block) == parts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moments_are_mean_and_variance_of_each_part(dtype: torch.dtype) -> None:
    k = normal(2, 3, 32, 8).to(dtype)
    mean, variance = unit_moments(k)
    assert mean.shape == variance.shape == (2, 3, 4, 8)
    assert mean.dtype == variance.dtype == torch.float32
    for i in range(4):
        part = k[..., 8 * i : 8 * (i + 1), :].double()
        torch.testing.assert_close(mean[..., i, :].double(), part.mean(-2))
        want = part.var(-2, correction=0)
        torch.testing.assert_close(variance[..., i, :].double(), want, atol=1e-6, rtol=1e-5)


def test_those_of_a_unit_follow_from_those_of_its_parts() -> None:
    k = normal(2, 3, 32, 8).double() + 5
    mean, variance = whole_moments(*unit_moments(k))
    assert mean.dtype == variance.dtype == torch.float32
    torch.testing.assert_close(mean.double(), k.mean(-2))
    torch.testing.assert_close(variance.double(), k.var(-2, correction=0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_of_keys_that_are_alike_nothing_is_lost(softcap: float | None) -> None:
    q, beside = normal(2, 4, 3, 8), normal(2, 4, 3, seed=2)
    k = normal(5, 2, 2, 4, 1, 8, seed=1).expand(-1, -1, -1, -1, 8, -1).flatten(3, 4)
    got = moment_mass(q, beside, *told(k), 32, 0.4, softcap)
    torch.testing.assert_close(got, exactly(q, beside, k, 0.4, softcap), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_it_is_that_of_normal_products(size: float) -> None:
    """Their mean and half the variance, at most what the largest of them adds."""
    q, k = size * normal(1, 1, 1, 4), normal(2, 1, 1, 24, 4, seed=1)
    lse = []
    for unit in range(2):
        of_parts = []
        for mean, variance in zip(*unit_moments(k[unit, 0, 0]), strict=True):
            x = q[0, 0, 0].double()
            m, s = float(x @ mean.double()), float(x * x @ variance.double())
            edge = math.sqrt(2 * math.log(6))
            gain = math.sqrt(s) * edge - edge**2 / 2 if math.sqrt(s) > edge else s / 2
            of_parts.append(m + gain + math.log(6))
        lse.append(torch.tensor(of_parts).double().logsumexp(0))
    beside = torch.tensor([[[1.5]]])
    want = torch.softmax(torch.stack([*lse, beside[0, 0, 0].double()]), 0)[:2]
    got = moment_mass(q, beside, *told(k), 24, 1.0)
    torch.testing.assert_close(got[0].double(), want, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("spread", "share"), [(0.3, 0.2), (1.0, 0.4), (4.0, 0.8)])
def test_variances_tell_more_than_means_alone(spread: float, share: float) -> None:
    """Less than so much of the error is left, in the log of the mass."""
    q, k = normal(1, 2, 4, 16), spread * normal(50, 1, 1, 128, 16, seed=1)
    beside = torch.full((1, 2, 4), 30.0)  # so that units are few beside all else
    want = exactly(q, beside, k, 0.25, None).log()
    means, variances = told(k)

    def error(variances: list[Tensor]) -> float:
        got = moment_mass(q, beside, means, variances, 128, 0.25).log()
        return float((got - want).square().mean().sqrt())

    assert error(variances) < share * error([0 * variances[0]])


def test_how_units_and_queries_are_cut_changes_nothing() -> None:
    q, beside = normal(2, 4, 5, 8), normal(2, 4, 5, seed=2)
    means, variances = told(normal(9, 2, 2, 32, 8, seed=1))
    whole = moment_mass(q, beside, means, variances, 32, 0.3)
    runs = [[x[0][:, :, :16], x[0][:, :, 16:]] for x in (means, variances)]
    torch.testing.assert_close(moment_mass(q, beside, *runs, 32, 0.3), whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "VALUES", 80)
        torch.testing.assert_close(moment_mass(q, beside, means, variances, 32, 0.3), whole)


def test_what_all_keys_share_may_be_taken_out() -> None:
    q, beside = normal(2, 4, 5, 8), normal(2, 4, 5, seed=2)
    k, centre = normal(9, 2, 2, 32, 8, seed=1), 30 * normal(2, 2, 8, seed=3)
    want = moment_mass(q, beside, *told(k + centre[None, :, :, None]), 32, 0.1)
    got = moment_mass(q, beside, *told(k), 32, 0.1, centre=centre)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-3)


def test_a_key_that_stands_out_is_seen() -> None:
    k = normal(20, 1, 1, 16, 8) / 4
    q = torch.zeros(1, 1, 1, 8)
    q[..., 0] = 4
    k[7, ..., 3, 0] = 6  # its mean is that of a dull unit with a slight lean
    k[3, ..., 0] += 2
    beside = torch.zeros(1, 1, 1)
    got, want = moment_mass(q, beside, *told(k), 16, 1.0), exactly(q, beside, k, 1.0, None)
    assert int(got.argmax()) == int(want.argmax()) == 7
    assert int((k.mean(3)[:, 0, 0] @ q[0, 0, 0]).argmax()) == 3
