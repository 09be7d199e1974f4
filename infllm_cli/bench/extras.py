"""The optional libraries that scorers and generators need."""

from collections.abc import Iterable
from importlib.util import find_spec

from infllm.cli.errors import MissingExtra

PACKAGES = {"rouge_score": "rouge-score"}  # module -> the name it is installed by, if another


def need(modules: Iterable[str], what: str) -> None:
    """Find out before a long run whether the libraries of `what` are there.

    Raises:
        MissingExtra: one is not installed.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        names = ", ".join(PACKAGES.get(name, name) for name in missing)
        raise MissingExtra(f"{what} needs {names}", "pip install 'infllm[eval]'")
