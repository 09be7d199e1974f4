"""Memory policies: which keys a block of queries attends, and what is kept afterwards."""

from infllm.engine.policies.base import NO_BOUND, Policy
from infllm.engine.policies.fast_inf_llm import FastInfLLM
from infllm.engine.policies.inf_llm import InfLLM
from infllm.engine.policies.kept_tokens import KeptTokens, random_scores, refuse_turns
from infllm.engine.policies.off_device import OffDevice
from infllm.engine.policies.run import run_policy
from infllm.engine.policies.table import POLICIES, make_policy

__all__ = [
    "NO_BOUND",
    "POLICIES",
    "FastInfLLM",
    "InfLLM",
    "KeptTokens",
    "OffDevice",
    "Policy",
    "make_policy",
    "random_scores",
    "refuse_turns",
    "run_policy",
]
