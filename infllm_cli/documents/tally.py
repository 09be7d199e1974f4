"""What a reader left out, counted as it reads."""

from __future__ import annotations

from infllm.cli.documents.document import LeftOut

SAMPLES = 3
SAMPLE_CHARS = 80


class Tally:
    """Counts of things left out by what they are, with the first few as samples."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, list[str]]] = {}

    def add(self, what: str, sample: str = "", count: int = 1) -> None:
        before, samples = self._found.get(what, (0, []))
        sample = " ".join(sample.split())
        if len(sample) > SAMPLE_CHARS:
            sample = f"{sample[: SAMPLE_CHARS - 3]}..."
        if sample and len(samples) < SAMPLES and sample not in samples:
            samples.append(sample)
        self._found[what] = before + count, samples

    def left_out(self) -> list[LeftOut]:
        return [
            LeftOut(what, count, tuple(samples)) for what, (count, samples) in self._found.items()
        ]
