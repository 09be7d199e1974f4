"""What git knows of a folder decides what is read of it, compared with git itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from infllm.cli.documents import Limits, read_sources
from infllm.cli.documents.folder import Found, walk

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@example.org")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "protocol.file.allow=always", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=True, encoding="utf-8")
    return done.stdout


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A repository with tracked files, one of them ignored, and untracked ones."""
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "-q")
    write(
        folder,
        {
            ".gitignore": "*.log\nbuild/\n",
            "a.txt": "a",
            "kept.log": "tracked all the same",
            "build/sub/kept.txt": "tracked in an ignored folder",
        },
    )
    git(folder, "add", "-f", ".gitignore", "a.txt", "kept.log", "build/sub/kept.txt")
    git(folder, "commit", "-qm", "one")
    write(
        folder,
        {
            "new.txt": "new",
            "no.log": "n",
            "build/no.txt": "n",
            "build/sub/no.txt": "n",
            "build/other/no.txt": "n",
        },
    )
    return folder


def ours(folder: Path) -> set[str]:
    found = [one for one in walk(str(folder), Limits()) if isinstance(one, Found)]
    return {os.path.relpath(one.path, folder) for one in found}


def gits(folder: Path) -> set[str]:
    listed = git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return {name for name in listed.split("\0") if name and not name.endswith("/")}


def test_tracked_files_are_read_though_a_pattern_matches_them(work: Path) -> None:
    assert ours(work) == gits(work)
    assert "kept.log" in ours(work)
    assert "build/sub/kept.txt" in ours(work)


@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_every_version_of_the_index(work: Path, version: str) -> None:
    write(work, {f"{'long-' * 30}{n}/{'x' * n}.log": "x" for n in range(1, 12)})
    git(work, "add", "-f", ".")
    if version == "3":  # what is added by intent alone needs extended flags
        write(work, {"later.log": "x"})
        git(work, "add", "-f", "-N", "later.log")
    git(work, "update-index", "--index-version", version)
    assert (work / ".git" / "index").read_bytes()[7] == int(version)
    assert ours(work) == gits(work)
    assert sum(name.endswith(".log") for name in ours(work)) >= 12


def test_a_split_index(work: Path) -> None:
    write(work, {f"{n}.log": "x" for n in range(100)})
    git(work, "add", "-f", ".")
    git(work, "update-index", "--split-index")
    git(work, "rm", "-q", "--cached", "3.log", "70.log", "71.log")
    write(work, {"50.log": "changed", "added.log": "x"})
    git(work, "add", "-f", "50.log", "added.log")
    assert list((work / ".git").glob("sharedindex.*"))
    assert ours(work) == gits(work)
    assert not {"3.log", "70.log", "71.log"} & ours(work)
    assert {"50.log", "added.log"} <= ours(work)


def test_an_index_with_longer_hashes(tmp_path: Path) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    git(folder, "init", "-q", "--object-format=sha256")
    write(folder, {".gitignore": "*.log\n", "kept.log": "x", "no.log": "x"})
    git(folder, "add", "-f", "kept.log")
    assert ours(folder) == gits(folder) == {".gitignore", "kept.log"}


@pytest.mark.parametrize("data", [b"", b"DIRC", b"DIRC\0\0\0\2\0\0\0\5short", b"\xff" * 4000])
def test_a_damaged_index_tracks_nothing(work: Path, data: bytes) -> None:
    (work / ".git" / "index").write_bytes(data)
    assert ours(work) == {".gitignore", "a.txt", "new.txt"}


def test_the_names_of_an_index_of_any_length(work: Path) -> None:
    folder = "/".join(["n" * 200] * 18)
    path = f"{folder}/{'x' * 200}.log"  # above the 4095 bytes that the index counts
    outside = os.getcwd()
    os.chdir(work)
    try:
        for part in folder.split("/"):
            os.mkdir(part)
            os.chdir(part)
    finally:
        os.chdir(outside)
    git(work, "update-index", "--add", "--cacheinfo", f"100644,{'1' * 40},{path[:4090]}")
    git(work, "update-index", "--add", "--cacheinfo", f"100644,{'1' * 40},z.log")
    write(work, {"z.log": "tracked behind it"})
    assert "z.log" in ours(work)


def test_a_worktree(work: Path, tmp_path: Path) -> None:
    (work / ".git" / "info" / "exclude").write_text("secret.txt\n")
    other = tmp_path / "other"
    git(work, "worktree", "add", "-q", str(other))
    write(other, {"secret.txt": "secret", "new.txt": "n"})
    assert (other / ".git").is_file()
    assert ours(other) == gits(other)
    collection = read_sources([str(other)])
    assert "secret" not in collection.text
    assert "gitdir:" not in collection.text


def test_a_submodule_goes_by_its_own_rules(work: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    git(inner, "init", "-q")
    write(inner, {".gitignore": "*.tmp\n", "code.txt": "c", "trace.log": "kept inside"})
    git(inner, "add", "-f", "code.txt", "trace.log", ".gitignore")
    git(inner, "commit", "-qm", "one")
    git(work, "submodule", "--quiet", "add", "-f", str(inner), "build/module")
    module = work / "build" / "module"
    write(module, {"new.log": "untracked", "no.tmp": "x", "own.txt": "x"})
    (work / ".git" / "modules" / "build" / "module" / "info" / "exclude").write_text("own.txt\n")
    expected = gits(work) - {"build/module"} | {f"build/module/{name}" for name in gits(module)}
    assert ours(work) == expected
    assert "build/module/new.log" in expected
    assert "build/module/own.txt" not in expected
    assert ours(module) == gits(module)


def test_a_repository_inside_another_that_does_not_track_it(work: Path) -> None:
    nested = work / "nested"
    nested.mkdir()
    git(nested, "init", "-q")
    write(nested, {"a.log": "x", "b.txt": "x", ".gitignore": "b.txt\n"})
    ignored = work / "build" / "nested"
    ignored.mkdir()
    git(ignored, "init", "-q")
    write(ignored, {"c.txt": "x"})
    assert {n for n in ours(work) if "nested" in n} == {"nested/a.log", "nested/.gitignore"}


def test_the_patterns_of_the_user_and_of_the_configuration(work: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    write(home, {".config/git/ignore": "*.mine\n"})
    write(work, {"a.mine": "x", "b.theirs": "x"})
    assert ours(work) == gits(work)
    assert "a.mine" not in ours(work)
    write(home, {".gitconfig": '[user]\n\tname = A\n[core]\n  excludesFile = "~/my ignores" # c\n'})
    write(home, {"my ignores": "*.theirs\n"})
    assert ours(work) == gits(work)
    assert "b.theirs" not in ours(work)
    git(work, "config", "core.excludesFile", "")
    assert ours(work) == gits(work)
    assert {"a.mine", "b.theirs"} <= ours(work)


def test_nothing_that_a_repository_names_is_run(work: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    for key in ("core.fsmonitor", "core.hooksPath", "core.pager", "alias.ls-files"):
        git(work, "config", key, str(trap))
    assert "kept.log" in ours(work)
    assert not (tmp_path / "sprung").exists()


def test_files_of_gits_own_are_no_documents(work: Path, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    folder.mkdir()
    git(tmp_path, "clone", "-q", "--bare", str(work), str(folder / "bare.git"))
    write(folder, {"notes.txt": "notes"})
    assert ours(folder) == {"notes.txt"}


def test_a_worktree_whose_repository_is_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "copied"
    write(
        folder,
        {
            ".git": "gitdir: /nowhere/at/all\n",
            ".gitignore": "*.log\n",
            "a.log": "x",
            "sub/b.log": "x",
        },
    )
    write(folder, {"sub/c.txt": "x"})
    assert ours(folder) == {".gitignore", "sub/c.txt"}
    assert ours(folder / "sub") == {"c.txt"}


def test_an_ignored_folder_that_the_user_names_is_read(work: Path) -> None:
    assert ours(work / "build") == {"no.txt", "other/no.txt", "sub/kept.txt", "sub/no.txt"}
