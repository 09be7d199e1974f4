"""Names of memory policies, as flags give them."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import get_args

from infllm.cli.errors import UsageError
from infllm.cli.options import split_list

ALIASES = {"stream-llm": "stream-lm", "sir-llm": "sirllm"}
READ_BACK = "inf-llm+read-back"  # that policy, answering as `ask --read-back` does


def parse_policies(text: str | None, default: str, further: Sequence[str] = ()) -> list[str]:
    """`inf-llm,origin` as a list; the configuration's own policy where none was named.

    `further`: names that may stand beside those of policies.

    Raises:
        UsageError: a name that is no policy, with the nearest one.
    """
    if text is None:
        return [default]
    from infllm.engine.config import ModelConfig

    known = [*get_args(ModelConfig.model_fields["type"].annotation), *further]
    names = [name.replace("_", "-") for name in split_list(text)]
    names = [ALIASES.get(name, name) for name in names]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise UsageError(
                f"unknown policy {name!r}",
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}",
            )
    if not names:
        raise UsageError("--policy names no policy", f"known: {', '.join(known)}")
    return list(dict.fromkeys(names))


def memory_policy(name: str) -> str:
    """The memory policy of a way to answer: `inf-llm` of `inf-llm+read-back`."""
    return name.partition("+")[0]
