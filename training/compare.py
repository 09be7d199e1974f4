"""Set two examinations side by side: `python -m training.compare ONE.json OTHER.json`.

Both are files of `training.evaluate`. Prints a Markdown table of the rows that both have, and how
many pairs of 95% intervals overlap.
"""

import argparse
import json
from pathlib import Path

Skills = dict[str, dict]


def rows_of(path: Path) -> dict[tuple[int, str], Skills]:
    """Length in tokens and policy -> skills; of rows alike the first."""
    rows: dict[tuple[int, str], Skills] = {}
    for row in json.loads(path.read_text())["rows"]:
        rows.setdefault((row["length"], row["policy"]), row["skills"])
    return rows


def overlap(one: dict, other: dict) -> bool:
    """Whether the 95% intervals of two scores have a point in common."""
    (low, high), (other_low, other_high) = one["interval"], other["interval"]
    return low <= other_high and other_low <= high


def table(one: dict[tuple[int, str], Skills], other: dict[tuple[int, str], Skills]) -> str:
    """Scores of the rows in both. Raises ValueError when there are none."""
    both = [row for row in one if row in other]
    if not both:
        raise ValueError("the files have no length and policy in common")
    skills = [skill for skill in one[both[0]] if skill in other[both[0]]]
    heads = [f"{length // 1024}K {policy}" for length, policy in both]
    lines = [f"| one / other | {' | '.join(heads)} |", f"|---|{'---|' * len(both)}"]
    for skill in skills:
        pairs = [(one[row].get(skill), other[row].get(skill)) for row in both]
        cells = [f"{a['score']:.0%} / {b['score']:.0%}" if a and b else "" for a, b in pairs]
        lines.append(f"| {skill} | {' | '.join(cells)} |")
    pairs = [(one[row][s], other[row][s]) for row in both for s in one[row] if s in other[row]]
    apart = len(pairs) - sum(overlap(a, b) for a, b in pairs)
    lines.append(f"\n{len(pairs) - apart} of {len(pairs)} pairs of 95% intervals overlap")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    args = parser.parse_args()
    try:
        print(table(rows_of(args.one), rows_of(args.other)))
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"cannot compare: {error}")


if __name__ == "__main__":
    main()
