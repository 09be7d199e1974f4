"""Ways to answer as flags name them: `inf-llm,infinite-lm:middle_topk=5,inf-llm+read-back,homer`.

A memory policy, one with passages read back, or a reader.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

from infllm.cli.errors import UsageError
from infllm.cli.options import parse_setting, split_list
from infllm.cli.readers.table import READERS

if TYPE_CHECKING:
    from infllm.engine.config import Config

ALIASES = {"stream-llm": "stream-lm", "sir-llm": "sirllm"}
BACK = "+read-back"  # answering as `ask --read-back` does
CITING = "inf-llm"  # the policy that tells which passages an answer attended
# Settings of the model, which is loaded once for all policies.
LOADED = {
    "type", "path", "tokenizer_path", "encoder_path", "revision", "device", "dtype", "quantization",
    "weights",
}  # fmt: skip


def parse_policies(text: str | None, config: "Config", asked: bool = False) -> list[str]:
    """`inf-llm,origin` as a list; the configuration's own policy where none was named.

    A policy's settings may follow it: `infinite-lm:middle_topk=5:middle_queries=all`.
    `asked`: questions are answered, so that `inf-llm+read-back` and readers may be named as well.

    Raises:
        UsageError: a name that is no policy, with the nearest one, or no setting of a policy.
        infllm.engine.errors.ConfigError: the value of a setting is wrong.
    """
    if text is None:
        return [config.model.type]
    names = [_name(one, config, asked) for one in split_list(text)]
    if not names:
        raise UsageError("--policy names no policy", f"known: {', '.join(_known(config, asked))}")
    return list(dict.fromkeys(names))


def memory_policy(name: str) -> str:
    """The memory policy of a way to answer: `inf-llm` of `inf-llm:topk=8+read-back`."""
    return name.removesuffix(BACK).partition(":")[0]


def reader_in(name: str) -> str | None:
    """The reader that a way to answer is, with settings or without; None where it is a policy."""
    reader = name.partition(":")[0]
    return reader if reader in READERS else None


def reads_back(name: str) -> bool:
    """Whether passages that a question found are read again before it is answered."""
    return name.endswith(BACK)


def session_overrides(name: str) -> dict[str, Any]:
    """What `Engine.session` changes for a policy: {"type": "infinite-lm", "middle_topk": 5}."""
    policy, *settings = name.removesuffix(BACK).split(":")
    return {"type": policy, **dict(map(parse_setting, settings))}


def reader_overrides(name: str) -> dict[str, Any]:
    """What of the configuration a reader's settings change: {"homer.chunk": 2048}."""
    reader, *settings = name.split(":")
    return {f"{reader}.{key}": value for key, value in map(parse_setting, settings)}


def _known(config: "Config", asked: bool = False) -> list[str]:
    policies = list(get_args(type(config.model).model_fields["type"].annotation))
    return [*policies, *READERS] if asked else policies


def _name(text: str, config: "Config", asked: bool) -> str:
    """The name of one way to answer as results carry it; refused where it is none."""
    policy, *settings = text.removesuffix(BACK).split(":")
    policy = policy.replace("_", "-")
    policy = ALIASES.get(policy, policy)
    _check(policy, _known(config, asked), f"unknown policy {policy!r}")
    keys = {*(type(config.model).model_fields.keys() - LOADED), "chunk_size"}
    if policy in READERS:
        keys = set(type(getattr(config, policy)).model_fields)
    for setting in settings:
        key, _ = parse_setting(setting, "--policy")
        _check(key, sorted(keys), f"unknown setting {key!r} of {policy}")
    name = ":".join([policy, *settings])
    changes = reader_overrides(name) if policy in READERS else session_overrides(name)
    config.with_overrides(changes, "--policy")
    if not reads_back(text):
        return name
    if not asked or policy != CITING:
        where = f"only {CITING} tells which passages" if asked else "it answers no questions"
        raise UsageError(f"{text!r} is no policy here", f"{where}; leave {BACK} out")
    return name + BACK


def _check(name: str, known: Sequence[str], otherwise: str) -> None:
    if name not in known:
        near = get_close_matches(name, known, 1)
        raise UsageError(
            otherwise,
            f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}",
        )
