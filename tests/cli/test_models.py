"""`infllm models`: what is here, what is fetched, which one is the default."""

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import constants

from infllm.cli.models import download
from infllm.engine.sources import ollama
from tests.engine.test_model_places import LIBRARY, in_hub_cache, pull
from tests.engine.tiny_gguf import byte_level_vocabulary, tiny_model, write_gguf


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return write_gguf(path, tiny_model("qwen2", len(byte_level_vocabulary().tokens)), "qwen2")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(ollama, "SYSTEM", tmp_path / "system")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub").mkdir()
    return tmp_path / "home"


def config_file(tmp_path):
    return tmp_path / "config" / "infllm" / "config.yaml"


def rows(infllm, *options):
    fields = json.loads(infllm("models", "list", "--json", *options).out)
    return {row["name"]: row for row in fields["models"]}, fields


def test_the_list_tells_what_is_here_from_all_places(infllm, home, model_file, tmp_path):
    pull(home / ".ollama/models", f"{LIBRARY}/tiny/0.5b", model_file)
    studio = home / ".lmstudio/models/org/tiny-GGUF"
    studio.mkdir(parents=True)
    (studio / "tiny.gguf").write_bytes(model_file.read_bytes())
    hub = tmp_path / "hub"
    in_hub_cache(hub, "org/gg", "x.gguf", model_file.read_bytes())
    config = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 99,
              "num_key_value_heads": 2, "num_hidden_layers": 3, "intermediate_size": 128,
              "max_position_embeddings": 4096}  # fmt: skip
    in_hub_cache(hub, "org/plain", "config.json", json.dumps(config).encode())
    in_hub_cache(hub, "org/plain", "README.md", b"---\nlicense: mit\n---\n")
    in_hub_cache(hub, "org/plain", "model.safetensors", b"0" * 1000)
    found, fields = rows(infllm, "--here")
    assert set(found) == {
        "pocket", "hf:org/gg:x.gguf", "org/plain", "ollama:tiny:0.5b",
        "lmstudio:org/tiny-GGUF/tiny.gguf",
    }  # fmt: skip
    tiny = found["ollama:tiny:0.5b"]
    assert (tiny["place"], tiny["license"], tiny["trained_tokens"]) == ("Ollama", "apache-2.0", 512)
    assert tiny["bytes"] == model_file.stat().st_size
    itemsize = tiny["kv_bytes_per_token"] / (3 * 2 * 2 * 16)  # layers, k and v, kv heads, width
    assert itemsize in (2, 4)
    assert tiny["fits"] is True
    plain = found["org/plain"]
    assert (plain["license"], plain["trained_tokens"]) == ("mit", 4096)
    assert fields["default"] == "pocket"
    text = infllm("models", "list", "--here")
    assert text.out.splitlines()[0].split() == [
        "model", "place", "licence", "size", "trained", "kv", "fits",
    ]  # fmt: skip
    assert "the default is pocket" in text.raw_err
    everything, _ = rows(infllm)
    assert everything["qwen3-0.6b"]["here"] is False
    assert set(found) < set(everything)


def test_what_does_not_fit_and_what_cannot_be_used(infllm, home, model_file, monkeypatch):
    pull(home / ".ollama/models", f"{LIBRARY}/tiny/latest", model_file)
    pull(home / ".ollama/models", f"{LIBRARY}/broken/latest", model_file, digest="cd" * 32)
    (home / ".ollama/models/blobs" / f"sha256-{'cd' * 32}").write_bytes(
        model_file.read_bytes()[:5000]
    )
    monkeypatch.setattr("infllm.cli.models.shelf._room", lambda: 1000)
    found, _ = rows(infllm, "--here")
    assert found["ollama:tiny:latest"]["fits"] is False
    assert "cut short" in found["ollama:broken:latest"]["problem"]
    text = infllm("models", "list", "--here")
    assert "ollama:broken:latest cannot be used" in text.raw_err


def test_use_a_preset_and_a_file(infllm, tmp_path, model_file):
    result = infllm("models", "use", "qwen3-0.6b")
    assert result.code == 0
    assert yaml.safe_load(config_file(tmp_path).read_text()) == {"preset": "qwen3-0.6b"}
    assert "infllm models get qwen3-0.6b" in result.raw_err
    assert infllm("models", "use", model_file).code == 0
    assert yaml.safe_load(config_file(tmp_path).read_text()) == {"model": {"path": str(model_file)}}
    fields = json.loads(infllm("presets", "show", "--json").out)
    assert fields["config"]["model.path"] == str(model_file)
    assert infllm("models", "use", "pocket").code == 0
    assert yaml.safe_load(config_file(tmp_path).read_text()) == {"preset": "pocket"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "# mine\nmodel:\n    topk: 9 # nine\n    path: old/model\nchunk_size: 4096\n",
            "# mine\nmodel:\n    topk: 9 # nine\nchunk_size: 4096\npreset: qwen3-0.6b\n",
        ),
        ("preset: pocket # small\n# end\n", "# end\npreset: qwen3-0.6b\n"),
        ("model:\n  path: a/b\n", "preset: qwen3-0.6b\n"),
        ("\ufeffchunk_size: 4096\n", "chunk_size: 4096\npreset: qwen3-0.6b\n"),
    ],
)
def test_what_else_is_in_the_users_file_stays(infllm, tmp_path, before, after):
    path = config_file(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(before)
    path.chmod(0o600)
    assert infllm("models", "use", "qwen3-0.6b").code == 0
    assert path.read_text() == after
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["config.yaml"]


def test_a_path_goes_beside_the_other_settings_of_the_model(infllm, tmp_path, model_file):
    path = config_file(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text("preset: pocket\nmodel: # here\n    topk: 9\n    revision: abc\n")
    assert infllm("models", "use", model_file).code == 0
    assert path.read_text() == f"model: # here\n    path: {model_file}\n    topk: 9\n"


def test_a_file_in_another_form_is_kept_beside(infllm, tmp_path):
    path = config_file(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text("{model: {path: a/b, topk: 9}}\n")
    assert infllm("models", "use", "qwen3-0.6b").code == 0
    assert yaml.safe_load(path.read_text()) == {"model": {"topk": 9}, "preset": "qwen3-0.6b"}
    assert path.with_name("config.yaml.bak").read_text() == "{model: {path: a/b, topk: 9}}\n"


@pytest.mark.parametrize("content", ["- a\n- b\n", "model: [\n"])
def test_a_users_file_that_is_no_settings_is_not_touched(infllm, tmp_path, content):
    path = config_file(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert infllm("models", "use", "qwen3-0.6b").code == 2
    assert path.read_text() == content


def test_use_refuses_what_names_no_model(infllm, tmp_path):
    for name in ("no-such-thing", "none.gguf", "ollama:none"):
        assert infllm("models", "use", name).code in (2, 5)
    assert not config_file(tmp_path).exists()


def test_a_default_that_something_else_overrules_is_told(infllm, monkeypatch):
    monkeypatch.setenv("INFLLM_PRESET", "pocket")
    result = infllm("models", "use", "qwen3-0.6b")
    assert "warning: here pocket is used all the same" in result.raw_err


class Hub:
    """The hub's library, with files of its own and no network."""

    def __init__(self, monkeypatch, cache, files, damaged=()):
        self.cache, self.files, self.fetched = cache, files, []
        self.damaged = set(damaged)
        self.error = None
        monkeypatch.setattr("huggingface_hub.HfApi.repo_info", self.repo_info)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", self.download)

    def repo_info(self, repo, revision=None, files_metadata=False):
        if self.error is not None:
            raise self.error
        siblings = [
            SimpleNamespace(
                rfilename=name,
                size=len(content),
                lfs=SimpleNamespace(sha256=hashlib.sha256(content).hexdigest())
                if name.endswith((".safetensors", ".gguf"))
                else None,
            )
            for name, content in self.files.items()
        ]
        return SimpleNamespace(sha="c0" * 20, siblings=siblings)

    def download(self, repo, name, revision=None):
        content = self.files[name]
        if name in self.damaged:
            content = content[:-1] + b"!"
        self.fetched.append(name)
        return str(in_hub_cache(self.cache, repo, name, content))


FILES = {
    "config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"0" * 1000,
    "model.bin": b"1" * 1000, "onnx/model.json": b"{}", "README.md": b"x",
}  # fmt: skip


def test_get_fetches_what_a_model_needs(infllm, tmp_path, monkeypatch):
    hub = Hub(monkeypatch, tmp_path / "hub", FILES)
    result = infllm("models", "get", "qwen3-0.6b")
    assert result.code == 0
    assert sorted(hub.fetched) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert "fetching 3 files, 1 kB" in result.raw_err
    assert result.out.strip().endswith("c0" * 20)
    hub.fetched.clear()
    again = infllm("models", "get", "Qwen/Qwen3-0.6B", "--json")
    fields = json.loads(again.out)
    assert (fields["bytes_fetched"], fields["model"]) == (0, "Qwen/Qwen3-0.6B")
    assert "is here already" in again.raw_err


def test_get_one_gguf_file_and_all_its_parts(infllm, tmp_path, monkeypatch):
    files = {f"a-0000{i}-of-00002.gguf": b"GGUF%d" % i for i in (1, 2)} | {"b.gguf": b"GGUF"}
    hub = Hub(monkeypatch, tmp_path / "hub", files)
    assert infllm("models", "get", "hf:org/x:a-00001-of-00002.gguf").code == 0
    assert sorted(hub.fetched) == sorted(files)[:2]
    missing = infllm("models", "get", "hf:org/x:c.gguf")
    assert missing.code == 5
    assert "b.gguf" in missing.raw_err
    unnamed = infllm("models", "get", "org/x")
    assert unnamed.code == 2
    assert "hf:org/x:a-00001-of-00002.gguf" in unnamed.raw_err


def test_a_file_that_came_damaged_is_removed(infllm, tmp_path, monkeypatch):
    hub = Hub(monkeypatch, tmp_path / "hub", FILES, damaged=["model.safetensors"])
    result = infllm("models", "get", "org/x")
    assert result.code == 1
    assert "checksum" in result.raw_err
    assert not list((tmp_path / "hub").rglob("*.safetensors"))
    hub.damaged.clear()
    assert infllm("models", "get", "org/x").code == 0


def test_get_without_network(infllm, tmp_path, monkeypatch):
    from infllm.engine.sources.hub import network_errors

    hub = Hub(monkeypatch, tmp_path / "hub", FILES)
    hub.error = network_errors()[-1]("no route to host")
    assert not isinstance(hub.error, OSError)
    result = infllm("models", "get", "org/x")
    assert result.code == 5
    assert "no route to host" in result.raw_err
    assert "network" in result.raw_err
    offline = infllm("models", "get", "org/x", "--offline", "--json")
    assert offline.code == 5
    assert json.loads(offline.out)["code"] == 5
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert infllm("models", "get", "org/x").code == 5
    assert hub.fetched == []


def test_get_says_when_the_disk_is_full(infllm, tmp_path, monkeypatch):
    hub = Hub(monkeypatch, tmp_path / "hub", FILES)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    result = infllm("models", "get", "org/x")
    assert result.code == 1
    assert "10 B are free" in result.raw_err
    assert hub.fetched == []


@pytest.mark.parametrize("name", ["pocket", "no such", "qwen3-06b", "./file.gguf", "hf:a:b"])
def test_get_refuses_what_is_not_on_the_hub(infllm, name):
    assert infllm("models", "get", name).code == 2


def test_prune_empties_the_cache_of_unpacked_files(infllm, model_file):
    from infllm.engine.sources import local_folder

    folder = local_folder(str(model_file))
    assert Path(folder).parent.stat().st_mode & 0o777 == 0o700
    _, fields = rows(infllm)
    (copy,) = fields["unpacked"]["models"]
    assert (copy["folder"], copy["whole"]) == (folder, True)
    result = infllm("models", "prune", "--json")
    assert json.loads(result.out)["removed"] == [{"folder": folder, "bytes": copy["bytes"]}]
    assert not Path(folder).exists()
    assert model_file.exists()
    assert infllm("models", "prune").code == 0


def test_rm_removes_copies_and_hub_models_and_nothing_else(infllm, home, model_file, tmp_path):
    from infllm.engine.sources import local_folder

    pull(home / ".ollama/models", f"{LIBRARY}/tiny/latest", model_file)
    folder = local_folder("ollama:tiny")
    assert infllm("models", "rm", "ollama:tiny").code == 0
    assert not Path(folder).exists()
    assert infllm("models", "rm", "ollama:tiny").code == 1  # nothing of ours is left
    assert [held.name for held in ollama.models_of_ollama()] == ["tiny:latest"]
    blob = tmp_path / "hub/models--org--plain/blobs/b0"
    path = in_hub_cache(tmp_path / "hub", "org/plain", "model.safetensors", b"")
    path.unlink()
    blob.parent.mkdir()
    blob.write_bytes(b"0" * 1000)
    path.symlink_to(blob)
    result = infllm("models", "rm", "org/plain", "--json")
    fields = json.loads(result.out)
    assert (fields["command"], fields["removed"]) == ("models rm", ["org/plain"])
    assert 1000 <= fields["bytes"] < 2000  # and the hub's own notes
    assert not blob.exists()


def test_a_new_user_is_told_of_real_models_once(infllm, fakes, book):
    told = Path(os.environ["XDG_STATE_HOME"]) / "infllm/told.json"
    told.unlink()
    question = ("ask", book, "What is the pass key?")
    assert "4M-parameter reader" not in infllm(*question, "-q").raw_err
    assert "4M-parameter reader" not in infllm(*question, "--json").raw_err
    first = infllm(*question).raw_err
    assert first.count("infllm models get qwen2.5-0.5b-instruct") == 1
    assert "4M-parameter reader" not in infllm(*question).raw_err
