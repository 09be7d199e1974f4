"""One call of one layer: a policy says what is attended, the kernels attend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from infllm.engine.attachment import Softmax
from infllm.kernels.attend import attend

if TYPE_CHECKING:
    from infllm.engine.attachment import Call
    from infllm.engine.policies.base import Policy


def run_policy(
    policy: Policy, q: Tensor, k: Tensor, v: Tensor, call: Call, scale: float,
    softcap: float | None = None, sink: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Attention of one call in one layer: q [B, H, T, D], k and v [B, Hkv, T, D], not rotated.

    Returns o [B, T, H, Dv] in q's dtype. Blocks of `policy.query_block` queries in order: what a
    block leaves in memory may be looked up by the next.
    """
    policy.softmax = Softmax(scale, softcap, sink)
    policy.begin(q, k, v, call)
    n = q.shape[2]
    out = q.new_empty(q.shape[0], n, q.shape[1], v.shape[-1])
    for start, stop in policy.spans(n):
        parts = policy.parts(start, stop)
        o, masses = attend(parts, scale, softcap, sink, policy.before(start, stop))
        block = out[:, start:stop]
        block.copy_(o.transpose(1, 2).reshape(block.shape))
        policy.update(start, stop, masses)
    policy.end()
    return out
