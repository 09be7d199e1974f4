"""Where a smaller model is written. Free of torch: it is looked at first."""

from pathlib import Path

from infllm.engine.errors import ConfigError


def check_place(folder: Path) -> None:
    """Raises ConfigError where something is in the way of a new folder."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} is there already", "name a new folder with -o")
    if folder.parent.exists() and not folder.parent.is_dir():
        raise ConfigError(f"{folder.parent} is not a folder", "name another place with -o")
