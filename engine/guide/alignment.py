"""Which tokens of one tokenizer spell the characters of another's, for states that follow a text.

The published reproductions tokenize twice and add states index by index, which is wrong from the
first word on that the two split differently.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from infllm.engine.text import TextTokenizer

Span = tuple[int, int]  # of characters: start, stop


def spans(tokenizer: TextTokenizer, ids: Sequence[int]) -> tuple[str, list[Span]]:
    """The text of `ids`, and which of its characters each token spells.

    A token that only ends or only begins a character has that character; a control token has none.
    """
    stream = tokenizer.stream()
    text = ""
    starts: list[int] = []
    for i in ids:
        starts.append(len(text))
        text += stream.push(i)
    text += stream.flush()
    stops = [*starts[1:], len(text)]
    found: list[Span] = []
    for i, start, stop in zip(ids, starts, stops, strict=True):
        silent = i in tokenizer.special_ids
        held = stop == start and not silent and start < len(text)  # a part of what comes next
        found.append((start, start if silent else stop + held))
    return text, found


def overlaps(ours: Sequence[Span], theirs: Sequence[Span]) -> tuple[Tensor, Tensor, Tensor]:
    """The entries of A that are not zero: int64 [n] rows, int64 [n] columns, float32 [n].

    A[i, j] is the number of characters that token i of `ours` and token j of `theirs` share, each
    row divided by its sum; a token that shares none has a row of zeros. Spans rise.
    """
    rows: list[int] = []
    columns: list[int] = []
    shared: list[float] = []
    first = 0
    for i, (start, stop) in enumerate(ours):
        while first < len(theirs) and theirs[first][1] <= start:
            first += 1
        j = first
        while j < len(theirs) and theirs[j][0] < stop:
            common = min(stop, theirs[j][1]) - max(start, theirs[j][0])
            if common > 0:
                rows.append(i)
                columns.append(j)
                shared.append(float(common))
            j += 1
    weights = torch.tensor(shared, dtype=torch.float32)
    row = torch.tensor(rows, dtype=torch.int64)
    sums = torch.zeros(len(ours)).index_add_(0, row, weights)
    return row, torch.tensor(columns, dtype=torch.int64), weights / sums[row]


def carried(states: Tensor, at: tuple[Tensor, Tensor, Tensor], n: int) -> Tensor:
    """A times states [m, d]: [n, d], `at` as `overlaps` gives it."""
    row, column, weight = (x.to(states.device) for x in at)
    out = states.new_zeros(n, states.shape[1])
    return out.index_add_(0, row, states[column] * weight[:, None].to(states.dtype))
