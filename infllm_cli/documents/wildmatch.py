"""git's pattern language for .gitignore files, exact to the byte.

A pattern is split at its slashes into components; each is a regular expression over one name, or
``**``, which stands for any number of names. Matching walks the names of a path once with the set
of components it may have reached, so that no pattern takes more than linear time in either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CLASSES = {
    b"alnum": rb"0-9A-Za-z",
    b"alpha": rb"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"\x21-\x7e",
    b"lower": rb"a-z",
    b"print": rb"\x20-\x7e",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb" \t\n\r\f\v",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9A-Fa-f",
}
SPECIAL = re.compile(rb"[*?\[\\]")
MANY = None  # the component **

Component = re.Pattern[bytes] | None


@dataclass(frozen=True)
class IgnorePattern:
    """One line of an ignore file. ``forms`` are alternatives, each a list of components."""

    negated: bool
    folders_only: bool
    anchored: bool  # matched against the path below the ignore file, else against the name alone
    forms: tuple[tuple[Component, ...], ...]

    def matches(self, names: list[bytes], is_folder: bool) -> bool:
        """``names``: the path below the ignore file, split at its slashes."""
        if self.folders_only and not is_folder:
            return False
        wanted = names if self.anchored else names[-1:]
        return any(_match(form, wanted) for form in self.forms)


def parse_pattern(line: bytes) -> IgnorePattern | None:
    """Pattern of a line without its newline; None for blanks, comments and what never matches."""
    line = line.removesuffix(b"\r")
    if line.startswith(b"#"):
        return None
    line = _trim(line)
    negated = line.startswith(b"!")
    body = line[1:] if negated else line
    folders_only = body.endswith(b"/")
    body = body[:-1] if folders_only else body
    anchored = b"/" in body
    body = body.removeprefix(b"/") if anchored else body
    if not body:
        return None
    forms = [form for form in map(_components, _alternatives(body, anchored)) if form is not None]
    return IgnorePattern(negated, folders_only, anchored, tuple(forms)) if forms else None


def _trim(line: bytes) -> bytes:
    """Without trailing spaces, unless a backslash keeps them."""
    kept = re.match(rb"(?:\\.|[^\\ ]| (?=.*[^ ]))*", line, re.DOTALL)
    rest = line[kept.end() :] if kept else line
    return line if rest.strip(b" ") else line[: len(line) - len(rest)]


def _alternatives(body: bytes, anchored: bool) -> list[bytes]:
    """git cuts the part before the first wildcard off, and then takes a ** that it finds there for
    one between slashes: ``a**/b`` is a, anything, /b or just ab."""
    wildcard = SPECIAL.search(body)
    if not anchored or wildcard is None or wildcard.start() == 0:
        return [body]
    prefix, rest = body[: wildcard.start()], body[wildcard.start() :]
    stars = re.match(rb"\*{2,}(/|$)", rest)
    if prefix.endswith(b"/") or stars is None:
        return [body]
    after = rest[stars.end() :]
    if not stars[1]:
        return [prefix + b"*", prefix + b"*/**"]
    return [prefix + after, prefix + b"*/" + after, prefix + b"*/**/" + after]


def _components(body: bytes) -> tuple[Component, ...] | None:
    """Components of a pattern; None where it can never match."""
    components: list[Component] = []
    pieces: list[bytes | int] = []  # regular expressions, and runs of stars by their length
    position = 0
    while position < len(body):
        char = body[position : position + 1]
        position += 1
        if char == b"\\":
            char = body[position : position + 1]
            position += 1
            if not char:
                return None
            if char != b"/":
                pieces.append(re.escape(char))
                continue
        if char == b"/":
            components.append(_component(pieces))
            pieces = []
        elif char == b"*":
            run = re.match(rb"\**", body[position:])
            extra = run.end() if run else 0
            position += extra
            pieces.append(1 + extra)
        elif char == b"?":
            pieces.append(b".")
        elif char == b"[":
            found = _set(body, position)
            if found is None:
                return None
            expression, position = found
            pieces.append(expression)
        else:
            pieces.append(re.escape(char))
    components.append(_component(pieces))
    return tuple(components)


def _component(pieces: list[bytes | int]) -> Component:
    if len(pieces) == 1 and isinstance(pieces[0], int) and pieces[0] > 1:
        return MANY
    segments = [b""]
    for piece in pieces:
        if isinstance(piece, int):
            segments.append(b"")
        else:
            segments[-1] += piece
    if len(segments) == 1:
        return re.compile(segments[0], re.DOTALL)
    # The first place where a middle segment fits is as good as any: no need to come back to it.
    first, *middle, last = segments
    expression = first + b"".join(b"(?>.*?" + segment + b")" for segment in middle)
    return re.compile(expression + b".*" + last, re.DOTALL)


def _set(body: bytes, position: int) -> tuple[bytes, int] | None:
    """Regular expression of the bracket set that begins after ``[`` at ``position``, and where it
    ends. None where it is not closed or names no known class."""
    negated = body[position : position + 1] in (b"!", b"^")
    position += negated
    members: list[bytes] = []
    before = b""  # what a range would begin with
    first = True
    while True:
        char = body[position : position + 1]
        if not char:
            return None
        if char == b"]" and not first:
            break
        first = False
        following = body[position + 1 : position + 2]
        if char == b"\\":
            if not following:
                return None
            members.append(_hex(following))
            before = following
            position += 2
        elif char == b"-" and before and following and following != b"]":
            position += 1
            if following == b"\\":
                position += 1
                following = body[position : position + 1]
                if not following:
                    return None
            if before <= following:
                members.append(_hex(before) + b"-" + _hex(following))
            before = b""
            position += 1
        elif char == b"[" and following == b":":
            end = body.find(b"]", position + 2)
            if end < 0:
                return None
            if end >= position + 3 and body[end - 1 : end] == b":":
                members_of = CLASSES.get(body[position + 2 : end - 1])
                if members_of is None:
                    return None
                members.append(members_of)
                before = b""
                position = end + 1
            else:
                members.append(_hex(b"["))
                before = b"["
                position += 1
        else:
            members.append(_hex(char))
            before = char
            position += 1
    if not members:
        return (b"." if negated else rb"(?!)"), position + 1
    return b"[" + (b"^" if negated else b"") + b"".join(members) + b"]", position + 1


def _hex(char: bytes) -> bytes:
    """A byte that is an operator nowhere in a set."""
    return b"\\x%02x" % ord(char)


def _match(form: tuple[Component, ...], names: list[bytes]) -> bool:
    end = len(form)
    reached = _skip({0}, form)
    for name in names:
        following: set[int] = set()
        for index in reached:
            if index == end:
                continue
            component = form[index]
            if component is MANY:
                following |= {index, end} if index + 1 == end else {index}
            elif component.fullmatch(name):
                following.add(index + 1)
        reached = _skip(following, form)
    return end in reached


def _skip(reached: set[int], form: tuple[Component, ...]) -> set[int]:
    """A ** that is not the last component may stand for no name at all."""
    reached = set(reached)
    for index in range(len(form) - 1):
        if index in reached and form[index] is MANY:
            reached.add(index + 1)
    return reached
