"""Models that LM Studio keeps: PUBLISHER/REPO/FILE.gguf in its folder. Read only."""

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from infllm.engine.errors import ModelNotFound
from infllm.engine.sources.gguf_file import PART, SUFFIX
from infllm.engine.sources.ollama import Held

PLACES = ("~/.lmstudio/models", "~/.cache/lm-studio/models")


def roots() -> list[Path]:
    """The folders that LM Studio may keep models in."""
    return [path for place in PLACES if (path := Path(place).expanduser()).is_dir()]


def find(name: str) -> Path:
    """The GGUF file of PUBLISHER/REPO[/FILE]; FILE may be left out where there is but one.

    Raises ModelNotFound, with what is there.
    """
    parts = [part for part in name.split("/") if part]
    if not 2 <= len(parts) <= 3 or ".." in parts:
        raise ModelNotFound(
            f"lmstudio:{name} is not PUBLISHER/REPO or PUBLISHER/REPO/FILE",
            "see what is here: infllm models list",
        )
    for root in roots():
        folder = root / parts[0] / parts[1]
        if not folder.is_dir():
            continue
        files = model_files(folder)
        if len(parts) == 3:
            wanted = parts[2].lower()
            files = [f for f in files if wanted in (f.name.lower(), f.stem.lower())]
        if len(files) == 1:
            return files[0]
        there = ", ".join(file.name for file in model_files(folder)) or "none"
        what = "has several files" if len(files) > 1 else "has no such file"
        raise ModelNotFound(f"lmstudio:{name} {what}", f"name one of them: {there}")
    if not roots():
        raise ModelNotFound(
            f"no models of LM Studio are here: neither in {PLACES[0]} nor in {PLACES[1]}",
            "give the path of the .gguf file itself",
        )
    here = [held.name for held in models_of_lmstudio()]
    near = get_close_matches(name, here, n=1, cutoff=0.4)
    hint = f"did you mean lmstudio:{near[0]}?" if near else "see: infllm models list"
    raise ModelNotFound(f"LM Studio has no model {name!r}", hint)


def model_files(folder: Path) -> list[Path]:
    """The models among a folder's GGUF files: of a set the first part; no projectors."""
    files = (path for path in sorted(folder.iterdir()) if path.suffix.lower() == SUFFIX)
    return [path for path in files if path.is_file() and is_model_name(path.name)]


def is_model_name(name: str) -> bool:
    """Whether a file's name is a model's, and the first part's where it is one of several."""
    part = PART.fullmatch(name)
    return not name.lower().startswith("mmproj") and (part is None or int(part["part"]) == 1)


def models_of_lmstudio() -> Iterator[Held]:
    """All models that are here as GGUF files."""
    for root in roots():
        for folder in sorted(path for path in root.glob("*/*") if path.is_dir()):
            for file in model_files(folder):
                yield Held("/".join(file.relative_to(root).parts), file)
