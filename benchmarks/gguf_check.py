"""GGUF files beside llama.cpp: the same ids for a text, and how far the next token's odds are.

    pip install xllamacpp   # llama.cpp as a wheel; infllm itself needs none
    python benchmarks/gguf_check.py --model MODEL.gguf ... --text BOOK.txt ... [--json OUT.json]

Ids: a megabyte of mixed text (of the given files, of Python's own library, of many scripts, emoji,
runs of blanks, and what looks like control tokens), section by section. What a text spells like a
token in angle or square brackets is text here and a token to llama.cpp where the file calls it
user-defined: such differences are counted apart. Odds: for a few prompts, Kullback-Leibler
divergence and the largest difference of log-probabilities among llama.cpp's hundred likeliest
tokens. llama.cpp multiplies quantised weights by activations rounded to 8 bits, so these are small
and not zero; the last lines compare number formats of the dequantised copy with float32.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import environment
from llama_cpp import Llama

SECTION = 4000  # characters
PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "Es war einmal ein König, der hatte eine Tochter, die war so schön, daß",
    "1, 1, 2, 3, 5, 8, 13, 21,",
)
SCRIPTS = (
    (0x00C0, 0x024F), (0x0370, 0x03FF), (0x0400, 0x04FF), (0x0530, 0x058F), (0x05D0, 0x05EA),
    (0x0620, 0x064A), (0x0904, 0x0939), (0x0985, 0x09B9), (0x0E01, 0x0E3A), (0x10D0, 0x10F0),
    (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x3041, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3),
    (0x1F300, 0x1F64F), (0x2190, 0x22FF), (0x2070, 0x209F), (0x0300, 0x036F), (0x1D400, 0x1D433),
)  # fmt: skip
ODDITIES = (
    "<|im_end|> <|im_start|>user\n", "</s><s>[INST] [/INST]", "<bos><eos> <pad> <unk>",
    "<start_of_turn>model\n<end_of_turn>", "<|endoftext|>", "<think>\n</think>", "<0x0A>",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 \U0001f44d\U0001f3fd",
    "don't I'LL we've it's 'Twas o'clock", "a\u00a0b\u2003c\u3000d\u200be\ufeff",
    "\t\t\tx\n\n\n\n  y   \r\n\r\n z \n \n \t",
    "3.14159 1,000,000 0x1F 12345678 \u0663\u0664 \u00bd",
    "e\u0301 n\u0303 \u1112\u1161\u11ab", "@#$%^&*()_+-=[]{}|;:,.<>?/~`",
    "\u2581 \u0120 \u2018q\u2019",
)  # fmt: skip


def mixed_text(files: list[Path], size: int, seed: int = 1) -> str:
    """About `size` bytes: half of files and code, half made of scripts and oddities."""
    dice = random.Random(seed)
    library = Path(sysconfig.get_paths()["stdlib"])
    code = [library / name for name in ("argparse.py", "typing.py", "decimal.py", "turtle.py")]
    pieces: list[str] = []
    for path in [*files, *(p for p in code if p.is_file())]:
        text = path.read_text(encoding="utf-8", errors="replace")
        start = dice.randrange(max(1, len(text) // 2))
        pieces.append(text[start : start + size // (2 * (len(files) + len(code)))])
    while sum(map(len, pieces)) < size:
        low, high = dice.choice(SCRIPTS)
        words = [
            "".join(chr(dice.randint(low, high)) for _ in range(dice.randint(1, 9)))
            for _ in range(40)
        ]
        pieces.append(" ".join(words) + dice.choice(("\n", "  ", "\n\n", ". ")))
        pieces.append(dice.choice(ODDITIES) + dice.choice((" ", "\n", "")))
        pieces.append(" " * dice.randint(1, 40) + dice.choice(("x", "7", "\n", ".")))
    return "".join(pieces)


def sections(text: str) -> Iterator[str]:
    for start in range(0, len(text), SECTION):
        yield text[start : start + SECTION]


def compare_ids(text: str, ours: Any, theirs: Llama, bracketed: re.Pattern[str]) -> dict[str, Any]:
    """Sections with the same ids, with others, and those others that spell bracketed tokens."""
    same = tokens = named = 0
    differing = []
    for section in sections(text):
        mine, other = ours.encode(section), theirs.ids(section)
        tokens += len(mine)
        if mine == other:
            same += 1
        elif bracketed.search(section) and ours.encode(bracketed.sub("", section)) == theirs.ids(
            bracketed.sub("", section)
        ):
            named += 1
        else:
            at = next((i for i, (a, b) in enumerate(zip(mine, other)) if a != b), -1)  # noqa: B905
            differing.append([section[:40], mine[at : at + 4], other[at : at + 4]])
    return {
        "bytes": len(text.encode()), "tokens": tokens, "sections": same + named + len(differing),
        "same": same, "differ_in_bracketed_tokens": named, "differ": len(differing),
        "examples": differing[:3],
    }  # fmt: skip


def compare_logits(model: Any, ours: Any, theirs: Llama, bos: list[int]) -> list[dict[str, Any]]:
    import torch

    found = []
    for prompt in PROMPTS:
        ids = [*bos, *ours.encode(prompt)]
        with torch.no_grad():
            mine = model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
        other = theirs.logprobs(ids, mine.shape[0])
        likely = sorted(other, key=lambda i: -other[i])
        p = torch.tensor([other[i] for i in likely])
        q = mine[torch.tensor(likely)]
        found.append(
            {
                "prompt": prompt[:24],
                "kl": round(float((p.exp() * (p - q)).sum()), 6),
                "largest_of_100": round(float((p - q)[:100].abs().max()), 4),
                "same_first": likely[0] == int(mine.argmax()),
            }
        )
    return found


def compare_formats(folder: Path, ours: Any, bos: list[int], wide: Any) -> dict[str, float]:
    """Kullback-Leibler divergence from float32 values, with weights rounded to each format."""
    import torch
    from transformers import AutoModelForCausalLM

    def odds(model: Any) -> list[Any]:
        with torch.no_grad():
            return [
                model(torch.tensor([[*bos, *ours.encode(p)]])).logits[0, -1].log_softmax(-1)
                for p in PROMPTS
            ]

    def divergence(a: list[Any], b: list[Any]) -> float:
        return max(float((p.exp() * (p - q)).sum()) for p, q in zip(a, b, strict=True))

    exact = odds(wide)
    stored = odds(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    rounded = {k: v.to(torch.bfloat16).float() for k, v in wide.state_dict().items()}
    wide.load_state_dict(rounded)
    return {"float16": divergence(exact, stored), "bfloat16": divergence(exact, odds(wide))}


def exact_model(path: Path, folder: Path, scratch: Path) -> Any:
    """The model with float32 values of all weights."""
    import shutil

    import torch
    from transformers import AutoModelForCausalLM

    from infllm.engine.sources.gguf_file import read_gguf
    from infllm.engine.sources.weights import plan_weights, write_weights

    shutil.copytree(folder, scratch, ignore=shutil.ignore_patterns("*.safetensors"))
    write_weights(plan_weights(read_gguf(path), wide=True), scratch / "model.safetensors")
    return AutoModelForCausalLM.from_pretrained(scratch, dtype=torch.float32)


def check(path: Path, text: str, threads: int) -> dict[str, Any]:
    import tempfile

    import torch
    from transformers import AutoModelForCausalLM

    from infllm.engine.sources import open_tokenizer, read_gguf
    from infllm.engine.sources.conversion import model_folder
    from infllm.engine.text import Tokenizer

    torch.set_num_threads(threads)
    started = time.perf_counter()
    told: list[str] = []
    folder = model_folder(read_gguf(path), told.append)
    first = time.perf_counter() - started
    started = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    loading = time.perf_counter() - started
    ours = Tokenizer(open_tokenizer(folder))
    theirs = Llama(path, threads)
    spelled = [
        t["content"] for t in ours._added.values() if re.fullmatch(r"<.*>|\[.*\]", t["content"])
    ]
    bracketed = re.compile(
        "|".join(map(re.escape, sorted(spelled, key=len, reverse=True))) or r"(?!)"
    )
    bos = [ours.bos_id] if ours.adds_bos else []
    found = {
        "model": path.name,
        "seconds_unpacking": round(first, 1) if told else None,
        "seconds_loading": round(loading, 1),
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "ids": compare_ids(text, ours, theirs, bracketed),
        "logits": compare_logits(model, ours, theirs, bos),
    }
    del model
    with tempfile.TemporaryDirectory() as scratch:
        wide = exact_model(path, folder, Path(scratch) / "wide")
        found["exact_logits"] = compare_logits(wide, ours, theirs, bos)
        found["kl_of_formats"] = compare_formats(folder, ours, bos, wide)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--text", nargs="*", type=Path, default=[], metavar="FILE")
    parser.add_argument("--bytes", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="OUT")
    given = parser.parse_args()
    text = mixed_text(given.text, given.bytes)
    results = [check(path, text, given.threads) for path in given.model]
    for found in results:
        ids = found["ids"]
        print(
            f"{found['model']}: {ids['same']} of {ids['sections']} sections alike, "
            f"{ids['differ_in_bracketed_tokens']} differ in bracketed tokens alone, "
            f"{ids['differ']} otherwise ({ids['tokens']:,} tokens); "
            f"unpacked in {found['seconds_unpacking']} s, loaded in {found['seconds_loading']} s"
        )
        for line in found["logits"]:
            print(f"  {line}")
        print(f"  divergence from float32: {found['kl_of_formats']}")
    report = {"benchmark": "gguf_check", **environment(), "models": results}
    print(json.dumps(report, ensure_ascii=False), file=sys.stderr)
    if given.json:
        given.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
