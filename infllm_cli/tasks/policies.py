"""Names of memory policies, as flags give them."""

from difflib import get_close_matches

from infllm.cli.errors import UsageError
from infllm.cli.options import split_list

POLICIES = ("inf-llm", "infinite-lm", "stream-lm", "window", "origin")


def parse_policies(text: str | None, default: str) -> list[str]:
    """`inf-llm,origin` as a list; the configuration's own policy where none was named.

    Raises:
        UsageError: a name that is no policy, with the nearest one.
    """
    if text is None:
        return [default]
    names = [name.replace("_", "-") for name in split_list(text)]
    names = ["stream-lm" if name == "stream-llm" else name for name in names]
    for name in names:
        if name not in POLICIES:
            near = get_close_matches(name, POLICIES, 1)
            raise UsageError(
                f"unknown policy {name!r}",
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(POLICIES)}",
            )
    if not names:
        raise UsageError("--policy names no policy", f"known: {', '.join(POLICIES)}")
    return list(dict.fromkeys(names))
