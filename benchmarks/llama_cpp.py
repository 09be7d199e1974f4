"""llama.cpp's server over one GGUF file, on this machine alone, by the wheel of xllamacpp."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any


class Llama:
    """One model, one sequence of at most `context` tokens."""

    def __init__(self, path: Path, threads: int, context: int = 2048, *, wide: bool = True) -> None:
        """`wide`: keys and values in float32; else as the server has them by default."""
        import xllamacpp

        wanted = xllamacpp.CommonParams()
        wanted.model.path = str(path)
        wanted.n_ctx, wanted.n_parallel, wanted.n_gpu_layers = context, 1, 0
        wanted.warmup, wanted.verbosity = False, 0
        if wide:
            wanted.cache_type_k = wanted.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = threads
        self._server = xllamacpp.Server(wanted)

    def post(self, path: str, content: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._server.listening_address + path,
            json.dumps(content).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    def ids(self, text: str) -> list[int]:
        asked = {"content": text, "add_special": False, "parse_special": False}
        return self.post("/tokenize", asked)["tokens"]

    def logprobs(self, ids: list[int], vocab: int) -> dict[int, float]:
        """Of the token after `ids`, for every token."""
        reply = self.post(
            "/completion",
            {"prompt": ids, "n_predict": 1, "n_probs": vocab, "temperature": 0},
        )
        found = reply["completion_probabilities"][0]["top_logprobs"]
        return {one["id"]: one["logprob"] for one in found}

    def complete(self, ids: list[int], tokens: int) -> dict[str, Any]:
        """What the server says of reading `ids`, as far as it has not yet, and making `tokens`."""
        asked = {"prompt": ids, "n_predict": tokens, "temperature": 0, "ignore_eos": True}
        return self.post("/completion", {**asked, "cache_prompt": True})["timings"]


def with_context(path: Path, context: int, folder: Path) -> Path:
    """A copy of the file that claims to be trained on `context` tokens: the server reads no more
    than a model claims."""
    from gguf import GGUFReader

    copy = folder / path.name
    shutil.copyfile(path, copy)
    reader = GGUFReader(copy, "r+")
    arch = str(bytes(reader.fields["general.architecture"].parts[-1]), "utf-8")
    field = reader.fields[f"{arch}.context_length"]
    field.parts[-1][0] = max(int(field.parts[-1][0]), context)
    reader.data.flush()
    return copy
