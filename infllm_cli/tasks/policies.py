"""Names of memory policies, as flags give them."""

from difflib import get_close_matches
from typing import get_args

from infllm.cli.errors import UsageError
from infllm.cli.options import split_list


def parse_policies(text: str | None, default: str) -> list[str]:
    """`inf-llm,origin` as a list; the configuration's own policy where none was named.

    Raises:
        UsageError: a name that is no policy, with the nearest one.
    """
    if text is None:
        return [default]
    from infllm.engine.config import ModelConfig

    known = get_args(ModelConfig.model_fields["type"].annotation)
    names = [name.replace("_", "-") for name in split_list(text)]
    names = ["stream-lm" if name == "stream-llm" else name for name in names]
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
