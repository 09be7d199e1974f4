"""Scoring: what a model thinks of tokens that are given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from infllm.engine.session.losses import blocks_of_logits, losses
from infllm.engine.session.steps import Stepping


class Scoring(Stepping):
    """Logits and losses of tokens, beside reading them."""

    @torch.no_grad()
    def score(self, ids: Sequence[int], *, step: bool = False) -> Tensor:
        """Logits float32 [T, vocab] after each of the T tokens of `ids`; closes the segment.

        With `step`, each token is a decode step: a segment of its own. What waited from `read`
        belongs to the segment (and is closed before the first step) and gets no row.
        """
        if step:
            tokens = self._listed(ids)
            self.end()
            rows = []
            for token in tokens:
                self._step(token)
                assert self._last_logits is not None
                rows.append(self._last_logits)
            return torch.stack(rows) if rows else self._no_logits()
        waiting = len(self._pending)
        ids = self._accept(ids)
        hidden: list[Tensor] = []
        for chunk in self._whole_chunks():
            self._forward(chunk, hidden)
        rest = self._take_pending()
        if rest:
            self._forward(rest, hidden, closes=True)
        self._offset = 0
        if not ids:
            return self._no_logits()
        states = torch.cat(hidden, dim=1)[:, waiting:]
        return torch.cat(list(blocks_of_logits(self.backing.attachment, states)))

    def _listed(self, ids: Iterable[int]) -> list[int]:
        ids = [int(i) for i in ids]
        self.refuse_broken()
        self.check_ids(ids)
        self._given += len(ids)
        return ids

    def _no_logits(self) -> Tensor:
        return torch.empty(0, self.backing.attachment.vocab_size)

    @torch.no_grad()
    def nll(self, ids: Sequence[int]) -> Iterator[Tensor]:
        """Negative log-likelihood in nats of `ids`, token by token, in blocks float32 [n].

        A token is predicted from all before it; the very first of a session from nothing, and has
        no entry. Constant memory. The state afterwards is that of `read(ids)`: the segment stays
        open, and an incomplete chunk at the end is scored on a fork. Tokens that waited from
        `read` are forwarded and not scored.
        """
        unscored = len(self._pending)
        ids = self._accept(ids)
        if not ids:
            return
        for chunk in self._whole_chunks():
            block = self._chunk_nll(chunk, unscored)
            unscored = max(0, unscored - len(chunk))
            if block.numel():
                yield block
        if len(self._pending) > unscored:
            tail = self.fork()
            block = tail._chunk_nll(tail._take_pending(), unscored)
            if block.numel():
                yield block

    def _chunk_nll(self, chunk: Sequence[int], unscored: int) -> Tensor:
        """NLL of a chunk's tokens after the first `unscored`; forwards the chunk."""
        before = self._last_logits
        hidden: list[Tensor] = []
        self._forward(chunk, hidden)
        if unscored >= len(chunk):
            return torch.empty(0)
        if self._kept is not None and self.config.score == "entropy":
            known = unscored if unscored or before is not None else 1
            return self._kept.surprise[-len(chunk) :][known:]
        attachment = self.backing.attachment
        return losses(attachment, chunk, hidden[0], before, unscored).cpu()
