"""Triton's kernels are interpreted when they are loaded so: `test_triton.py` runs these apart."""

import os

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_triton_*.py"]
