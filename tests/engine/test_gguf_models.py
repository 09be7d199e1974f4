"""A GGUF file gives the model it was written from: weights, settings and rotation."""

import json
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import AutoModelForCausalLM

from infllm.engine import load
from infllm.engine.config import load_config
from infllm.engine.errors import EngineError, ModelFileError, UnsupportedModel
from infllm.engine.sources import local_folder, read_gguf
from infllm.engine.sources.architectures import ARCHITECTURES, model_config
from infllm.engine.sources.weights import plan_weights, write_weights

from .tiny_gguf import (
    MODELS,
    byte_level_vocabulary,
    sentencepiece_vocabulary,
    stored_tensors,
    tiny_model,
    write_gguf,
)

IDS = torch.randint(5, 280, (1, 60), generator=torch.Generator().manual_seed(0))
VOCAB = len(byte_level_vocabulary().tokens)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INFLLM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def logits_of(model):
    with torch.no_grad():
        return model(IDS).logits


def loaded(path):
    return AutoModelForCausalLM.from_pretrained(local_folder(str(path)), dtype=torch.float32).eval()


@pytest.mark.parametrize("architecture", sorted(MODELS))
def test_every_architecture_computes_what_it_did(tmp_path, architecture):
    model = tiny_model(architecture, VOCAB)
    path = write_gguf(tmp_path / "m.gguf", model, architecture)
    assert torch.allclose(logits_of(loaded(path)), logits_of(model), atol=1e-5)


def test_every_architecture_that_is_read_is_tested():
    assert set(MODELS) == set(ARCHITECTURES)


@pytest.mark.parametrize(
    "kind", [Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0]
)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3"])
def test_quantised_weights_are_what_their_blocks_say(tmp_path, architecture, kind):
    model = tiny_model(architecture, VOCAB)
    path = write_gguf(tmp_path / "m.gguf", model, architecture, kind=kind)
    # The model with every matrix rounded as the file has it, by the gguf package: rows apart.
    with torch.no_grad():
        for values in model.state_dict().values():
            if values.ndim == 2:
                rounded = gguf.quants.dequantize(gguf.quants.quantize(values.numpy(), kind), kind)
                values.copy_(torch.from_numpy(rounded.copy()))
    found = loaded(path).state_dict()
    for name, values in model.state_dict().items():
        assert torch.allclose(found[name], values, rtol=2**-11, atol=1e-7), name


@pytest.mark.parametrize(
    "kind", [Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.IQ4_NL, Kind.IQ4_XS]
)
def test_blocks_of_every_common_type_are_read(tmp_path, kind):
    block, nbytes = gguf.GGML_QUANT_SIZES[kind]
    model = tiny_model("qwen2", VOCAB, hidden_size=256, intermediate_size=256)
    blocks = np.random.default_rng(0).integers(0, 60, (256, 256 // block * nbytes), dtype=np.uint8)
    path = tmp_path / "m.gguf"
    write_gguf(path, model, "qwen2", skip=("blk.0.attn_q.weight",), extra={
        "blk.0.attn_q.weight": (blocks, kind)
    })  # fmt: skip
    found = loaded(path).model.layers[0].self_attn.q_proj.weight
    wanted = torch.from_numpy(gguf.quants.dequantize(blocks, kind)).half().float()
    assert torch.equal(found, wanted)


def test_values_beyond_float16_are_kept(tmp_path):
    model = tiny_model("qwen2", VOCAB)
    kind = Kind.Q8_0
    blocks = gguf.quants.quantize(model.model.layers[1].mlp.up_proj.weight.detach().numpy(), kind)
    scales = blocks.reshape(-1, 34)[:, :2].view(np.float16)
    scales[:] = 1000.0  # times up to 127
    path = tmp_path / "m.gguf"
    write_gguf(path, model, "qwen2", skip=("blk.1.ffn_up.weight",),
               extra={"blk.1.ffn_up.weight": (blocks, kind)})  # fmt: skip
    found = loaded(path).model.layers[1].mlp.up_proj.weight
    assert found.abs().max() > 65504
    assert torch.equal(found, torch.from_numpy(gguf.quants.dequantize(blocks, kind)))


def test_values_that_are_no_numbers_are_told(tmp_path):
    model = tiny_model("qwen2", VOCAB)
    blocks = np.full((128, 64 // 32 * 34), 0xFF, dtype=np.uint8)
    path = tmp_path / "m.gguf"
    write_gguf(path, model, "qwen2", skip=("blk.1.ffn_up.weight",),
               extra={"blk.1.ffn_up.weight": (blocks, Kind.Q8_0)})  # fmt: skip
    with pytest.raises(ModelFileError, match=r"blk\.1\.ffn_up\.weight.*no numbers"):
        local_folder(str(path))


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "llama3", "rope_theta": 5000.0, "factor": 8.0, "low_freq_factor": 1.0,
         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
        {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
        {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
         "original_max_position_embeddings": 128},
    ],
)  # fmt: skip
def test_scaled_positions(tmp_path, rope):
    model = tiny_model("llama", VOCAB, rope_parameters=rope, hidden_size=256)
    path = write_gguf(tmp_path / "m.gguf", model, "llama")
    assert model_config(read_gguf(path))["rope_parameters"] == rope
    assert torch.allclose(logits_of(loaded(path)), logits_of(model), atol=1e-5)


def test_factors_of_no_known_rule_are_taken_as_they_are(tmp_path):
    model = tiny_model("llama", VOCAB)
    factors = np.array([1, 1, 1.5, 2, 3, 4, 7, 9], dtype=np.float32)
    path = tmp_path / "m.gguf"
    write_gguf(path, model, "llama", extra={"rope_freqs.weight": (factors, Kind.F32)})
    inverse = loaded(path).model.rotary_emb.inv_freq
    plain = model.model.rotary_emb.inv_freq
    assert torch.allclose(inverse, plain / torch.from_numpy(factors))


def test_an_unknown_scaling_is_refused(tmp_path):
    path = tmp_path / "m.gguf"
    write_gguf(path, tiny_model("llama", VOCAB), "llama",
               metadata={"llama.rope.scaling.type": "spiral"})  # fmt: skip
    with pytest.raises(UnsupportedModel, match="spiral"):
        local_folder(str(path))


def test_a_set_of_parts_is_one_model(tmp_path):
    model = tiny_model("llama", VOCAB)
    whole = write_gguf(tmp_path / "m.gguf", model, "llama")
    names = list(stored_tensors(model, "llama"))
    parts = [tmp_path / f"m-{i:05d}-of-00002.gguf" for i in (1, 2)]
    for path, skipped in zip(parts, (names[10:], names[:10]), strict=True):
        write_gguf(path, model, "llama", skip=tuple(skipped),
                   metadata={"split.tensors.count": len(names)})  # fmt: skip
    for path in parts:
        assert torch.equal(logits_of(loaded(path)), logits_of(loaded(whole)))
    parts[1].unlink()
    with pytest.raises(ModelFileError, match=r"00002-of-00002\.gguf is missing"):
        read_gguf(parts[0])


def test_a_part_under_another_name_is_told(tmp_path):
    model = tiny_model("llama", VOCAB)
    names = list(stored_tensors(model, "llama"))
    path = write_gguf(tmp_path / "m.gguf", model, "llama", skip=tuple(names[10:]),
                      metadata={"split.tensors.count": len(names)})  # fmt: skip
    with pytest.raises(ModelFileError, match="names 30 tensors and holds 10"):
        read_gguf(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.3, 0.6, 0.99])
def test_a_file_that_was_cut_short_is_told(tmp_path, share):
    path = write_gguf(tmp_path / "m.gguf", tiny_model("qwen2", VOCAB), "qwen2")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelFileError, match=r"cut short|not a GGUF file"):
        read_gguf(path)


def test_a_damaged_header_is_an_error_of_ours(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tiny_model("qwen2", VOCAB), "qwen2")
    content = path.read_bytes()
    dice = np.random.default_rng(0)
    damaged = 0
    for trial in range(300):
        other = bytearray(content[:40_000])
        for _ in range(1 + trial % 3):
            at = int(dice.integers(4, 12_000))
            other[at] = int(dice.integers(0, 256))
        path.write_bytes(bytes(other) + content[40_000:])
        try:
            model_config(read_gguf(path))
        except EngineError:
            damaged += 1
    assert damaged > 10


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (b"<html>not found</html>      ", "not a GGUF"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(40), "version 1"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(40), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60) + bytes(40), "cut short"),
    ],
)
def test_what_is_no_file_of_ours(tmp_path, start, told):
    path = tmp_path / "m.gguf"
    path.write_bytes(start)
    with pytest.raises(ModelFileError, match=told):
        load_config(str(path))


@pytest.mark.parametrize("key", ["block_count", "attention.head_count", "rope.freq_base"])
def test_settings_that_make_no_sense(tmp_path, key):
    path = tmp_path / "m.gguf"
    write_gguf(path, tiny_model("llama", VOCAB), "llama")
    content = path.read_bytes()
    at = content.index(f"llama.{key}".encode()) + len(f"llama.{key}")
    path.write_bytes(content[:at] + struct.pack("<If", 6, float("nan")) + content[at + 8 :])
    with pytest.raises(EngineError):
        load_config(str(path))


def test_a_file_that_is_not_there_is_told_before_anything_else(tmp_path):
    with pytest.raises(ModelFileError, match=r"no model file .*none\.gguf"):
        load_config(str(tmp_path / "none.gguf"))


def test_a_type_of_blocks_that_nobody_knows(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tiny_model("qwen2", VOCAB), "qwen2")
    content = path.read_bytes()
    name = b"blk.0.attn_q.weight"
    at = content.index(name) + len(name) + 4 + 16
    path.write_bytes(content[:at] + struct.pack("<I", 99) + content[at + 4 :])
    with pytest.raises(ModelFileError, match="quantisation type 99"):
        read_gguf(path)


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"general.type": "adapter"}, "adapter"),
        ({"general.type": "mmproj"}, "projector"),
        ({"llama.expert_count": 8}, "experts"),
        ({"llama.attention.value_length": 8}, "width"),
    ],
)
def test_files_that_are_no_model_by_themselves(tmp_path, metadata, told):
    path = tmp_path / "m.gguf"
    write_gguf(path, tiny_model("llama", VOCAB), "llama", metadata=metadata)
    with pytest.raises(UnsupportedModel, match=told):
        load_config(str(path))


def test_an_unknown_architecture_is_named(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "mamba9")
    writer.add_tensor("x", np.zeros((2, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedModel, match="mamba9") as told:
        load_config(str(tmp_path / "m.gguf"))
    assert "qwen2" in told.value.hint


def test_missing_and_unknown_tensors_are_named(tmp_path):
    model = tiny_model("llama", VOCAB)
    path = tmp_path / "m.gguf"
    write_gguf(path, model, "llama", skip=("blk.1.ffn_up.weight",))
    with pytest.raises(ModelFileError, match=r"blk\.1\.ffn_up\.weight"):
        local_folder(str(path))
    odd = {"blk.0.ssm_a.weight": (np.zeros((4, 32), dtype=np.float32), Kind.F32)}
    write_gguf(path, model, "llama", extra=odd)
    with pytest.raises(UnsupportedModel, match="ssm_a"):
        local_folder(str(path))


def test_it_is_unpacked_once_and_again_when_the_file_changes(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tiny_model("qwen2", VOCAB), "qwen2")
    told = []
    first = local_folder(str(path), told.append)
    assert len(told) == 1
    assert "unpacking m.gguf once" in told[0]
    assert local_folder(str(path), told.append) == first
    write_gguf(path, tiny_model("qwen2", VOCAB, seed=1), "qwen2")
    assert local_folder(str(path), told.append) != first
    assert len(told) == 2


def test_what_is_made_in_the_cache_is_for_this_user_alone(tmp_path, cache):
    path = write_gguf(tmp_path / "m.gguf", tiny_model("qwen2", VOCAB), "qwen2")
    folder = Path(local_folder(str(path)))
    for made in (folder, cache / "models", cache):
        assert made.stat().st_mode & 0o777 == 0o700


def test_the_same_bytes_elsewhere_are_the_same_copy(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tiny_model("qwen2", VOCAB), "qwen2")
    other = tmp_path / "sha256-0123"
    other.write_bytes(path.read_bytes())
    assert local_folder(str(other)) == local_folder(str(path))


def test_a_writer_that_was_killed_leaves_no_model(tmp_path, cache, monkeypatch):
    path = write_gguf(tmp_path / "m.gguf", tiny_model("qwen2", VOCAB), "qwen2")

    def stopped(weights, beside, told):
        write_weights(weights[:3], beside, told)
        raise KeyboardInterrupt

    monkeypatch.setattr("infllm.engine.sources.conversion.write_weights", stopped)
    with pytest.raises(KeyboardInterrupt):
        local_folder(str(path))
    assert not list(cache.rglob("*.safetensors*"))
    monkeypatch.undo()
    monkeypatch.setenv("INFLLM_CACHE_DIR", str(cache))
    (folder,) = (path for path in (cache / "models").iterdir() if path.is_dir())
    left = folder / ".model.safetensors.999999999.part"  # of a process that is gone
    left.write_bytes(b"x")
    assert local_folder(str(path)) == str(folder)
    assert not left.exists()
    assert torch.isfinite(logits_of(loaded(path))).all()


def test_pieces_of_any_size_make_the_same_file(tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "m.gguf", tiny_model("llama", VOCAB), "llama", kind=Kind.Q4_1)
    plan = plan_weights(read_gguf(path))
    write_weights(plan, tmp_path / "a")
    for size in (1, 700, 5000):
        monkeypatch.setattr("infllm.engine.sources.weights.PIECE", size)
        (tmp_path / "b").unlink(missing_ok=True)
        write_weights(plan, tmp_path / "b")
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_room_is_told_before_anything_is_written(tmp_path, cache, monkeypatch):
    path = write_gguf(tmp_path / "m.gguf", tiny_model("qwen2", VOCAB), "qwen2")
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("infllm.engine.sources.cache.shutil.disk_usage", lambda folder: full)
    with pytest.raises(ModelFileError, match="are free"):
        local_folder(str(path))
    assert not list(cache.rglob("*.safetensors*"))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3"])
def test_the_engine_reads_and_answers_with_it(tmp_path, architecture):
    spm = architecture == "gemma3"
    vocabulary = sentencepiece_vocabulary() if spm else byte_level_vocabulary()
    model = tiny_model(architecture, len(vocabulary.tokens))
    path = write_gguf(tmp_path / "m.gguf", model, architecture, vocabulary=vocabulary)
    engine = load(str(path), device="cpu", overrides={"model.dtype": "float32"})
    with engine:
        session = engine.session()
        session.read(engine.tokenizer.encode("the other theory " * 100))
        assert len(list(session.generate(max_new_tokens=4))) >= 1
        assert engine.config.origins["model.n_local"] == "fitted to the model"
        assert engine.config.model.n_local == 256


def test_a_yaml_file_names_a_model_beside_it(tmp_path, monkeypatch):
    write_gguf(tmp_path / "m.gguf", tiny_model("qwen2", VOCAB), "qwen2")
    (tmp_path / "mine.yaml").write_text("model:\n  path: m.gguf\n  topk: 3\n")
    monkeypatch.chdir("/")
    config = load_config(str(tmp_path / "mine.yaml"))
    assert config.model.path == str(tmp_path / "m.gguf")
    assert config.model.n_local == 256
    assert config.model.topk == 3


def test_config_says_what_ends_an_answer(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tiny_model("qwen2", VOCAB), "qwen2")
    folder = local_folder(str(path))
    with open(f"{folder}/generation_config.json") as file:
        assert json.load(file)["eos_token_id"] == [2]


def test_settings_are_fitted_to_a_model_that_was_not_here_when_they_were_made(
    tmp_path, monkeypatch
):
    from infllm.engine.config import settings

    path = write_gguf(tmp_path / "m.gguf", tiny_model("llama", VOCAB), "llama")
    here = load_config(str(path))
    with monkeypatch.context() as patch:
        patch.setattr(settings, "read_model_config", lambda path: None)
        config = load_config(str(path))
    assert (config.model.n_local, config.awaits_model) == (4096, True)
    with load(config) as engine:
        assert engine.config.model.n_local == here.model.n_local < 4096
        assert engine.config.origins["model.n_local"] == "fitted to the model"
    assert not here.awaits_model
