"""The table of operations that Triton computes, for `infllm.kernels.dispatch`."""

from infllm.kernels.dispatch import fill
from infllm.kernels.triton.attend import attend, attend_state
from infllm.kernels.triton.descent import descend
from infllm.kernels.triton.merge_state import merge_state
from infllm.kernels.triton.quantize import dequantize, quantize
from infllm.kernels.triton.query_sums import query_sums, window_scores
from infllm.kernels.triton.rotate import rotate, rotate_append
from infllm.kernels.triton.take_step import take_step
from infllm.kernels.triton.unit_mass import dense_lse, unit_lse
from infllm.kernels.triton.unit_topk import slab_scores, top_places, top_units, unit_scores

fill(
    {
        "attend": attend,
        "attend_state": attend_state,
        "dense_lse": dense_lse,
        "dequantize": dequantize,
        "descend": descend,
        "merge_state": merge_state,
        "quantize": quantize,
        "query_sums": query_sums,
        "rotate": rotate,
        "rotate_append": rotate_append,
        "slab_scores": slab_scores,
        "take_step": take_step,
        "top_places": top_places,
        "top_units": top_units,
        "unit_lse": unit_lse,
        "unit_scores": unit_scores,
        "window_scores": window_scores,
    }
)
