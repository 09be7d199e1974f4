"""InfLLM as its definition reads (tests/data/golden/README.md), in float64, with plain loops.

Shares no code with the engine. Grown by the settings that the published code does not have:
`repr_score: dot`, `repr_heads: group` and `far_position: exact` and `within`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from infllm.engine.config import ModelConfig


@dataclass
class Trace:
    """What happened: outputs, lookups by their first query, and units in order."""

    o: list[Tensor] = field(default_factory=list)  # [H, D] a token
    chosen: dict[int, list[list[int]]] = field(default_factory=dict)  # start -> units a group
    score: list[Tensor] = field(default_factory=list)  # [R, block_size] a unit
    best: list[list[set[int]]] = field(default_factory=list)  # offsets in the unit, by head


class Reference:
    """One layer reading q [H, N, D], k and v [Hkv, N, D] in calls."""

    def __init__(self, cfg: ModelConfig, freq: Tensor, q: Tensor, k: Tensor, v: Tensor) -> None:
        self.cfg = cfg
        self.freq = freq
        self.q, self.k, self.v = q.double(), k.double(), v.double()
        self.h, self.hkv = q.shape[0], k.shape[0]
        self.turned = torch.stack(
            [self.turn(self.k[:, j], j) for j in range(k.shape[1])], dim=1
        )  # keys at their own positions
        self.mass = torch.zeros(self.h, q.shape[1], dtype=torch.float64)
        self.n = self.init = self.rem = 0
        self.index: list[Tensor] = []  # [R, D] a unit
        self.trace = Trace()

    def turn(self, x: Tensor, position: int) -> Tensor:
        angle = position * self.freq
        a, b = x.chunk(2, dim=-1)
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    def call(self, length: int, *, closes: bool = True) -> None:
        cfg = self.cfg
        size = cfg.exc_block_size
        group = (cfg.chunk_topk_calc or 0) // size * size
        visible = len(self.index)
        self.exact = cfg.far_position == "exact" or (
            cfg.far_position == "within" and length <= size
        )
        self.looks_up = cfg.lookups is None or length <= size or closes
        self.topk = cfg.question_topk if cfg.question_topk and length <= size else cfg.topk
        self.floor = 0  # what is far stands there at least
        if cfg.far_position == "within" and cfg.far_limit is not None:
            self.floor = self.n + length - max(cfg.far_limit, 2 * cfg.n_local)
        for start in range(0, length, size):
            if group == 0 or start % group == 0:
                visible = len(self.index)
            self.block(min(size, length - start), visible)

    def block(self, m: int, visible: int) -> None:
        queries = range(self.n, self.n + m)
        chosen = self.look_up(queries, visible)
        for p in queries:
            self.attend(p, chosen)
        self.n += m
        self.cut()

    def look_up(self, queries: range, visible: int) -> list[list[int]]:
        """Units that each query head attends."""
        cfg = self.cfg
        if visible == 0 or not self.looks_up:
            return [[]] * self.h
        far = torch.stack([self.turn(self.q[:, p], cfg.n_local - 1) for p in queries]).mean(dim=0)
        if cfg.repr_heads == "group":
            far = far.view(self.hkv, -1, far.shape[1]).sum(dim=1)
        score = torch.stack([(far * r).sum(dim=-1) for r in self.index[:visible]], dim=1)
        if not cfg.perhead:
            score = score.sum(dim=0, keepdim=True)
        rows = [sorted(row.argsort(descending=True)[: self.topk].tolist()) for row in score]
        self.trace.chosen[queries.start] = rows
        return [rows[head * len(rows) // self.h] for head in range(self.h)]

    def attend(self, p: int, chosen: list[list[int]]) -> None:
        cfg = self.cfg
        scale = self.q.shape[-1] ** -0.5
        near = list(range(max(self.rem, p - cfg.n_local + 1), p + 1))
        row = []
        for head in range(self.h):
            kv = head // (self.h // self.hkv)
            far = [*range(self.init), *range(self.rem, p - cfg.n_local + 1)]
            place = [max(0, self.floor) + i for i in range(self.init)] + far[self.init :]
            for unit in chosen[head]:
                first = cfg.n_init + unit * cfg.block_size
                far += range(first, first + cfg.block_size)
                place += [max(first, self.floor) + i for i in range(cfg.block_size)]
            q_near, q_far = (
                self.turn(self.q[head, p], p),
                self.turn(self.q[head, p], cfg.n_local - 1),
            )
            logits = [self.turned[kv, near] @ q_near]
            if self.exact:
                there = zip(far, place, strict=True)
                logits += [self.turn(self.k[kv, j], at)[None] @ q_near for j, at in there]
            else:
                logits.append(self.k[kv, far] @ q_far)
            weight = torch.softmax(torch.cat(logits) * scale, dim=0)
            row.append(weight @ self.v[kv, near + far])
            self.mass[head, near] += weight[: len(near)]
        self.trace.o.append(torch.stack(row))

    def score_of(self, j: int) -> Tensor:
        """[H]: how much the queries that had token j near wanted it."""
        cfg = self.cfg
        if cfg.repr_score == "mass":
            return self.mass[:, j]
        wanted = [self.turn(self.q[:, p], cfg.n_local - 1) for p in range(j, j + cfg.n_local)]
        key = self.k[:, j].repeat_interleave(self.h // self.hkv, dim=0)
        return (torch.stack(wanted).mean(dim=0) * key).sum(dim=-1)

    def cut(self) -> None:
        cfg = self.cfg
        size = cfg.block_size
        if self.init < cfg.n_init and self.n - self.rem > cfg.n_local:
            moved = min(cfg.n_init - self.init, self.n - self.rem - cfg.n_local)
            self.init += moved
            self.rem += moved
        while self.n - self.rem - size >= cfg.n_local:
            tokens = range(self.rem, self.rem + size)
            score = torch.stack([self.score_of(j) for j in tokens], dim=1)  # [H, size]
            keys = self.k.repeat_interleave(self.h // self.hkv, dim=0)
            if cfg.repr_heads == "group":
                score, keys = score.view(self.hkv, -1, size).sum(dim=1), self.k
            best = [row.argsort(descending=True)[: cfg.repr_topk].tolist() for row in score]
            self.index.append(
                torch.stack(
                    [keys[i, [self.rem + j for j in b]].mean(dim=0) for i, b in enumerate(best)]
                )
            )
            self.trace.score.append(score)
            self.trace.best.append([set(b) for b in best])
            self.rem += size
