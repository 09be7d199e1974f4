"""Turn a training run into the folder that ships.

`python -m training.export --run DIR --to presets/pocket`
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from training.model import pocket_config
from training.tokenizer import load_tokenizer


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write bfloat16 safetensors, configuration and tokenizer, as `Auto*` classes load them.

    The model passed in keeps its dtype.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shipped = LlamaForCausalLM(model.config)
    shipped.load_state_dict(model.state_dict())
    shipped.to(torch.bfloat16)
    shipped.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    shipped.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)


def load_run(run: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, dict]:
    """Model (float32), tokenizer and progress of the last checkpoint in `run`."""
    tokenizer = load_tokenizer(run / "tokenizer")
    state = torch.load(run / "checkpoint.pt", weights_only=True, map_location="cpu")
    config = pocket_config(
        len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    )
    model = LlamaForCausalLM(config)
    model.load_state_dict(state["model"])
    return model.eval(), tokenizer, state["progress"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the --out of a training run")
    parser.add_argument("--to", type=Path, required=True, help="folder of the exported model")
    args = parser.parse_args()
    model, tokenizer, progress = load_run(args.run)
    export(model, tokenizer, args.to)
    weights = args.to / "model.safetensors"
    figures = {
        **progress,
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": weights.stat().st_size,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
