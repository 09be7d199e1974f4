"""Settings of single memory policies, parts of the `model:` section. Lengths are in tokens."""

from typing import Literal

from pydantic import Field

from infllm.engine.config.stages import Refresh, Stages
from infllm.engine.config.values import Count, CountOrZero, Settings, Share

# Names in the published code -> names here.
PUBLISHED = {
    # LM-Infinite
    "local_branch": "n_local",
    "global_branch": "n_init",
    "limit_distance": "far_distance",
    "top_k_attention": "middle_topk",
    "top_k_insert_at": "middle_position",
    "top_k_from_layer": "middle_from_layer",
    "top_k_to_layer": "middle_to_layer",
    # SirLLM
    "start_size": "n_init",
    "token_entropy_size": "n_entropy",
    "recent_size": "n_recent",
    "decay_ratio": "decay",
}


class LookupSettings(Settings):
    """`inf-llm`: how a call of at most one block (a question, a decode step, a document's tail)
    finds units, and where it puts them. Longer calls, which read a document, do as published, but
    for `far_position: exact`."""

    # `representatives`: by a mean vector of each unit, as published. `keys`: by the attention mass
    # that all their keys would receive. `moments`: likewise, of those units alone that mean and
    # variance of the keys put first: of 16K tokens all, of more a quarter for a question, and
    # fewer for a step of its answer.
    unit_score: Literal["representatives", "keys", "moments"] = "moments"
    # `capped`: all that is far at one distance, as published. `exact`: at its own, in all calls.
    # `within`: at its own up to `far_limit` tokens, and at that distance beyond.
    far_position: Literal["capped", "exact", "within"] = "capped"
    far_limit: Count | None = None  # None: no limit
    question_topk: Count | None = None  # units that such a call looks up; None: topk
    # `questions`: longer calls, unless they end what was given, look up nothing: a document is read
    # by the window alone. None: all calls look up, as published.
    lookups: Literal["questions"] | None = None


class MiddleSettings(Settings):
    """`infinite-lm` (arXiv 2308.16137): `n_init` and `n_local`, and the tokens between them."""

    # Keys between the initial tokens and the window that a query head attends; 0: none.
    middle_topk: CountOrZero = 0
    # `last`: the last token of a segment and every generated one, as published; `all`: each token.
    middle_queries: Literal["last", "all"] = "last"
    middle_from_layer: CountOrZero = 4  # counted from 0
    middle_to_layer: Count | None = None  # the first without; None: none is
    middle_position: CountOrZero | None = None  # distance of those keys; None: half of n_local
    # Distance of the initial keys, by the window's length L = n_local or in tokens. Published: L.
    far_distance: Literal["L", "L-1"] | CountOrZero = "L-1"

    def has_middle(self, layer: int) -> bool:
        """Whether queries of a layer attend keys between the initial ones and the window."""
        below = self.middle_to_layer is None or layer < self.middle_to_layer
        return self.middle_topk > 0 and self.middle_from_layer <= layer and below


class PruningSettings(Settings):
    """`infinitehip` (arXiv 2502.08910), whose first tokens are `n_init`, its stream `n_local`."""

    stages: Stages = "3k"
    refresh: Refresh = "default"  # decode steps between two runs of each stage
    # By number: these prune by chunk index, and keep more.
    early_layers: list[CountOrZero] = Field(default_factory=lambda: [0, 1, 2])
    prune_capacity: Count | None = None  # tokens that chunk indices count to; None: those read
    # What pruning looks at: keys as they are kept, or int8 copies, which lie on the device as long
    # as there are at most `prune_bound` tokens. Auto: int8 on a GPU.
    prune_keys: Literal["auto", "kv", "int8"] = "auto"
    prune_bound: Count = 262144


class SurpriseSettings(Settings):
    """`sirllm` (arXiv 2405.12528): `n_init` and these are the most tokens that are kept."""

    n_entropy: CountOrZero = 1000  # by the highest surprise; an arriving turn is paid from these
    n_recent: CountOrZero = 1000
    decay: Share = 1.0  # multiplies the surprise of what is kept, at every turn
    score: Literal["entropy", "random"] = "entropy"  # `random`: the baseline, by `score_seed`
    score_seed: CountOrZero = 0


LOOKUPS = tuple(LookupSettings.model_fields)
# Settings that only one policy knows, by its name.
OF_POLICY = {
    "infinite-lm": frozenset(MiddleSettings.model_fields),
    "infinitehip": frozenset(PruningSettings.model_fields),
    "sirllm": frozenset(SurpriseSettings.model_fields),
}
