"""Memory policies as flags name them: `inf-llm,infinite-lm:middle_topk=5,inf-llm+read-back`."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

from infllm.cli.errors import UsageError
from infllm.cli.options import parse_setting, split_list

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


def parse_policies(text: str | None, config: "Config", read_back: bool = False) -> list[str]:
    """`inf-llm,origin` as a list; the configuration's own policy where none was named.

    A policy's settings may follow it: `infinite-lm:middle_topk=5:middle_queries=all`.
    `read_back`: whether `inf-llm+read-back` may be named as well.

    Raises:
        UsageError: a name that is no policy, with the nearest one, or no setting of a policy.
        infllm.engine.errors.ConfigError: the value of a setting is wrong.
    """
    if text is None:
        return [config.model.type]
    names = [_name(one, config, read_back) for one in split_list(text)]
    if not names:
        raise UsageError("--policy names no policy", f"known: {', '.join(_known(config))}")
    return list(dict.fromkeys(names))


def memory_policy(name: str) -> str:
    """The memory policy of a way to answer: `inf-llm` of `inf-llm:topk=8+read-back`."""
    return name.removesuffix(BACK).partition(":")[0]


def reads_back(name: str) -> bool:
    """Whether passages that a question found are read again before it is answered."""
    return name.endswith(BACK)


def session_overrides(name: str) -> dict[str, Any]:
    """What `Engine.session` changes for a policy: {"type": "infinite-lm", "middle_topk": 5}."""
    policy, *settings = name.removesuffix(BACK).split(":")
    return {"type": policy, **dict(map(parse_setting, settings))}


def _known(config: "Config") -> list[str]:
    return list(get_args(type(config.model).model_fields["type"].annotation))


def _name(text: str, config: "Config", read_back: bool) -> str:
    """The name of one policy as results carry it; refused where it is none."""
    policy, *settings = text.removesuffix(BACK).split(":")
    policy = policy.replace("_", "-")
    policy = ALIASES.get(policy, policy)
    _check(policy, _known(config), f"unknown policy {policy!r}")
    keys = {*(type(config.model).model_fields.keys() - LOADED), "chunk_size"}
    for setting in settings:
        key, _ = parse_setting(setting, "--policy")
        _check(key, sorted(keys), f"unknown setting {key!r} of {policy}")
    name = ":".join([policy, *settings])
    config.with_overrides(session_overrides(name), "--policy")
    if not reads_back(text):
        return name
    if not read_back or policy != CITING:
        where = f"only {CITING} tells which passages" if read_back else "it answers no questions"
        raise UsageError(f"{text!r} is no policy here", f"{where}; leave {BACK} out")
    return name + BACK


def _check(name: str, known: Sequence[str], otherwise: str) -> None:
    if name not in known:
        near = get_close_matches(name, known, 1)
        raise UsageError(
            otherwise,
            f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}",
        )
