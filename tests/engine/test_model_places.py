"""Models by the names that Ollama, LM Studio and the hub have for them."""

import json
import os

import pytest

from infllm.engine import load
from infllm.engine.config import load_config
from infllm.engine.errors import ModelFileError, ModelNotFound, UnsupportedModel
from infllm.engine.sources import find_gguf, lmstudio, names_gguf, ollama

from .tiny_gguf import byte_level_vocabulary, tiny_model, write_gguf

MODEL = "application/vnd.ollama.image.model"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("INFLLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setattr(ollama, "SYSTEM", tmp_path / "system")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return write_gguf(path, tiny_model("qwen2", len(byte_level_vocabulary().tokens)), "qwen2")


def pull(root, place, model_file, kinds=(MODEL,), digest="ab" * 32, blob=True):
    """As `ollama pull` would leave it."""
    manifest = root / "manifests" / place
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layers = [{"mediaType": kind, "digest": f"sha256:{digest}", "size": 1} for kind in kinds]
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    if blob:
        (root / "blobs").mkdir(exist_ok=True)
        (root / "blobs" / f"sha256-{digest}").write_bytes(model_file.read_bytes())


LIBRARY = "registry.ollama.ai/library"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("tiny", f"{LIBRARY}/tiny/latest"),
        ("tiny:0.5b", f"{LIBRARY}/tiny/0.5b"),
        ("someone/tiny", "registry.ollama.ai/someone/tiny/latest"),
        ("hf.co/org/tiny-GGUF:Q4_K_M", "hf.co/org/tiny-GGUF/Q4_K_M"),
    ],
)
def test_a_model_of_ollama(home, model_file, name, place):
    root = home / ".ollama" / "models"
    pull(root, place, model_file)
    before = sorted(path for path in root.rglob("*"))
    assert names_gguf(f"ollama:{name}")
    file = find_gguf(f"ollama:{name}")
    assert file.architecture == "qwen2"
    assert [held.name for held in ollama.models_of_ollama()] == [
        name if ":" in name else f"{name}:latest"
    ]
    with load(f"ollama:{name}", overrides={"model.dtype": "float32"}, device="cpu") as engine:
        assert engine.config.model.path == f"ollama:{name}"
    assert sorted(path for path in root.rglob("*")) == before  # read only


def test_where_ollama_is_looked_for(home, tmp_path, model_file, monkeypatch):
    pull(tmp_path / "system", f"{LIBRARY}/shared/latest", model_file)
    assert find_gguf("ollama:shared").path.parent.parent == tmp_path / "system"
    pull(tmp_path / "elsewhere", f"{LIBRARY}/mine/latest", model_file)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "elsewhere"))
    assert {held.name for held in ollama.models_of_ollama()} == {"mine:latest", "shared:latest"}


def test_a_name_that_ollama_has_not(home, model_file):
    with pytest.raises(ModelNotFound, match="no models of Ollama"):
        load_config("ollama:tiny")
    pull(home / ".ollama/models", f"{LIBRARY}/qwen2.5/0.5b", model_file)
    with pytest.raises(ModelNotFound, match="has no model") as told:
        load_config("ollama:qwen2.5:05b")
    assert "ollama:qwen2.5:0.5b" in told.value.hint
    for outside in ("../../../x", "a/../../../b:c", "", "/", "x:../../y"):
        with pytest.raises(ModelNotFound):
            find_gguf(f"ollama:{outside}")


@pytest.mark.parametrize(
    ("kinds", "blob", "error", "told"),
    [
        ((MODEL, ollama.ADAPTER), True, UnsupportedModel, "adapter"),
        ((ollama.TENSOR,), True, UnsupportedModel, "not stored as a GGUF"),
        ((ollama.LICENCE,), True, UnsupportedModel, "no weights"),
        ((MODEL,), False, ModelFileError, "is missing"),
    ],
)
def test_what_of_ollama_cannot_be_read(home, model_file, kinds, blob, error, told):
    pull(home / ".ollama/models", f"{LIBRARY}/tiny/latest", model_file, kinds, blob=blob)
    with pytest.raises(error, match=told):
        find_gguf("ollama:tiny")
    assert list(ollama.models_of_ollama()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"layers": 3}', '{"layers": [1, {}]}'])
def test_a_manifest_that_is_none(home, model_file, content):
    root = home / ".ollama/models"
    pull(root, f"{LIBRARY}/tiny/latest", model_file)
    (root / "manifests" / LIBRARY / "tiny/latest").write_text(content)
    with pytest.raises((ModelFileError, UnsupportedModel)):
        find_gguf("ollama:tiny")
    assert list(ollama.models_of_ollama()) == []


def test_a_blob_that_is_no_gguf_file(home, model_file):
    root = home / ".ollama/models"
    pull(root, f"{LIBRARY}/tiny/latest", model_file)
    (root / "blobs" / f"sha256-{'ab' * 32}").write_bytes(b"not a model" * 9)
    with pytest.raises(ModelFileError, match="not a GGUF file"):
        load_config("ollama:tiny")


@pytest.mark.parametrize("place", [".lmstudio/models", ".cache/lm-studio/models"])
def test_a_model_of_lm_studio(home, model_file, place):
    folder = home / place / "org" / "tiny-GGUF"
    folder.mkdir(parents=True)
    (folder / "tiny-Q8_0.gguf").write_bytes(model_file.read_bytes())
    (folder / "mmproj-tiny.gguf").write_bytes(b"a projector")
    for name in ("org/tiny-GGUF", "org/tiny-GGUF/tiny-Q8_0.gguf", "org/tiny-GGUF/tiny-q8_0"):
        assert find_gguf(f"lmstudio:{name}").path == folder / "tiny-Q8_0.gguf"
    assert [held.name for held in lmstudio.models_of_lmstudio()] == ["org/tiny-GGUF/tiny-Q8_0.gguf"]
    (folder / "tiny-Q4_0.gguf").write_bytes(model_file.read_bytes())
    with pytest.raises(ModelNotFound, match="several files") as told:
        find_gguf("lmstudio:org/tiny-GGUF")
    assert "tiny-Q4_0.gguf, tiny-Q8_0.gguf" in told.value.hint


def test_a_name_that_lm_studio_has_not(home, model_file):
    with pytest.raises(ModelNotFound, match="no models of LM Studio"):
        find_gguf("lmstudio:org/tiny")
    (home / ".lmstudio/models/org/tiny-GGUF").mkdir(parents=True)
    for name in ("org/other", "org", "org/../..", "org/tiny-GGUF/none.gguf", "a/b/c/d"):
        with pytest.raises(ModelNotFound):
            find_gguf(f"lmstudio:{name}")


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub"


def in_hub_cache(cache, repo, name, content):
    """As the hub's library keeps a file."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    commit = "c0" * 20
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    path = folder / "snapshots" / commit / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_of_the_hub(hub_cache, model_file):
    path = in_hub_cache(hub_cache, "org/tiny-GGUF", "tiny-Q8_0.gguf", model_file.read_bytes())
    name = "hf:org/tiny-GGUF:tiny-Q8_0.gguf"
    assert find_gguf(name).path == path
    assert load_config(name).model.n_local == 256
    with pytest.raises(ModelNotFound, match="not on this machine"):
        find_gguf("hf:org/tiny-GGUF:other.gguf")
    assert find_gguf("hf:org/tiny-GGUF:other.gguf", fetch=False) is None
    for wrong in ("hf:org/tiny-GGUF", "hf:tiny:x.gguf", "hf:org/tiny:x.bin"):
        with pytest.raises(ModelNotFound, match="is not ORG/REPO:FILE"):
            find_gguf(wrong)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "x.gguf").mkdir()
    with pytest.raises(ModelFileError, match="is a folder"):
        load_config(str(tmp_path / "x.gguf"))


def test_a_file_that_may_not_be_read(model_file, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = tmp_path / "x.gguf"
    path.write_bytes(model_file.read_bytes())
    path.chmod(0)
    with pytest.raises(ModelFileError, match="cannot read"):
        load_config(str(path))


def test_a_gguf_file_of_any_name_is_known_by_its_beginning(model_file, tmp_path):
    path = tmp_path / "sha256-0123"
    path.write_bytes(model_file.read_bytes())
    assert names_gguf(str(path))
    assert load_config(str(path)).model.path == str(path)
