"""InfiniRetri's sentences, windows, attention and choices equal to the recorded ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from infllm.cli.readers.base import NOTHING, Excerpt
from infllm.cli.readers.infiniretri import InfiniRetri, phrase_sums
from infllm.cli.readers.sentences import SHORT_IN_PROMPTS, SHORT_IN_WINDOWS, sentences
from infllm.engine import Engine, attach
from infllm.engine.config import Config, load_config
from infllm.engine.text import prompt_text
from tests.engine import siblings

ATTENTION, SCORES = 2e-5, 1e-5  # tolerances of the recorded data
# The published prompt begins with an empty system message.
TEMPLATE = (
    "<|im_start|>system\n<|im_end|>\n{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n{{ '' }}"
)


def settings(raw: dict[str, Any]) -> Config:
    head, tail = raw["prompt"].split("{context}")
    config = siblings.CASES[raw["name"]]["config"]
    return load_config(
        {
            "model": {"path": "", "kv_dtype": "fp32"},
            "chat_template": TEMPLATE,
            "prompts": {"ask": {"head": head, "tail": tail}},
            "infiniretri": config,
        },
        environ={},
        project=siblings.FOLDER / "no.yaml",
        user=siblings.FOLDER / "no.yaml",
    )


def recorded(name: str) -> dict[str, Any]:
    case = siblings.CASES[name]
    return {**json.loads((siblings.FOLDER / case["file"]).read_text()), "name": name}


def engine_of(raw: dict[str, Any]) -> Engine:
    case = siblings.CASES[raw["name"]]
    folder = siblings.FOLDER / case["model"]
    model = siblings.Case(case, {}).model()
    return attach(model, AutoTokenizer.from_pretrained(folder), settings(raw))


@pytest.mark.parametrize("name", siblings.names("infiniretri", "pipeline"))
def test_every_step_is_the_recorded_one(name: str) -> None:
    raw = recorded(name)
    arrays = load_file(siblings.FOLDER / siblings.CASES[name]["tensors"])
    document, question = raw["document"], raw["question"]
    with engine_of(raw) as engine:
        prompt = prompt_text(engine.tokenizer, engine.config, "ask", question=question)
        reader = InfiniRetri(engine, prompt, question)
        windows = reader.windows(document)
        assert [document[a:b] for a, b in windows] == raw["windows"]
        whole, carried = Excerpt.of(document, 0, len(document)), NOTHING
        for i, (want, window) in enumerate(zip(raw["steps"], windows, strict=True)):
            step = reader.step(carried, whole[slice(*window)])
            asked, carried = step.asked, step.carried
            assert [asked.whole.text[a:b] for a, b in asked.spans] == want["sentences"]
            assert asked.tokens == want["sentence_tokens"]
            assert asked.ids == want["token_ids"]
            assert list(asked.columns) == want["context_span"]
            assert [asked.first_row, len(asked.ids)] == want["question_rows"]
            attention, scores = arrays[f"attention_{i}"], arrays[f"scores_{i}"]
            torch.testing.assert_close(step.rows, attention, atol=ATTENTION, rtol=0)
            torch.testing.assert_close(
                step.scores, scores, atol=SCORES * float(scores.max()), rtol=0
            )
            assert step.focus == want["focus_tokens"]
            assert step.kept == want["kept_sentences"]
            assert carried.text.strip() == want["carried_text"].strip()
        left, tokens = InfiniRetri(engine, prompt, question).read(whole)
        assert left.text == carried.text.strip()
        assert tokens == sum(len(step["token_ids"]) for step in raw["steps"])
        assert reader.answer_ids(left) == raw["final_token_ids"]
        # What is kept are ranges of the document.
        spelled = "".join(document[a:b] for a, b in left.ranges())
        assert spelled == "".join(c for c, at in zip(left.text, left.where, strict=True) if at >= 0)
        if raw.get("answer_greedy_8"):
            session = engine.session(overrides={"type": "origin"})
            session.read(reader.answer_ids(left))
            answer = [token.id for token in session.generate(8, stop_ids=[])]
            assert engine.tokenizer.decode(answer) == raw["answer_greedy_8"]


def test_sentences_by_both_rules() -> None:
    (name,) = (n for n in siblings.names("infiniretri", "unit") if "sentences" in n)
    for case in json.loads((siblings.FOLDER / siblings.CASES[name]["file"]).read_text()):
        for rule, short in ("prompt", SHORT_IN_PROMPTS), ("window", SHORT_IN_WINDOWS):
            found = [case["text"][a:b] for a, b in sentences(case["text"], short)]
            assert found == case[f"{rule}_rule_{short}"]


def test_sums_over_neighbours() -> None:
    arrays = load_file(siblings.FOLDER / siblings.CASES["box_filter"]["file"])
    for width in range(1, 12):
        torch.testing.assert_close(
            phrase_sums(arrays["x"], width), arrays[f"box_{width}"], atol=1e-6, rtol=0
        )
