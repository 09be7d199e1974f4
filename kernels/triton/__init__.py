"""Triton versions of the kernels, one file per operation beside its reference."""

from __future__ import annotations

import os

# Products and sums may be fused: Triton 3.9 warns unless this is said.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
