"""A reply to a question as commands show it: fields of JSON, what it rests on, how it ended."""

from typing import TYPE_CHECKING

import typer

from infllm.cli.errors import ExitCode
from infllm.cli.output import Output

if TYPE_CHECKING:
    from infllm.cli.tasks.answer import Answer
    from infllm.cli.tasks.questions import Reply

NO_ANSWER = {  # what thinking did that ended so before an answer began
    "length": "took all of --max-new-tokens",
    "repetition": "repeated itself without end",
}


def answer_fields(question: str, reply: "Reply") -> dict:
    """What JSON says of one answer."""
    return {
        "answer": reply.answer.text,
        "question": question,
        "citations": [citation.fields for citation in reply.citations],
        "tokens_generated": reply.answer.tokens,
        "tokens_thinking": reply.answer.tokens_thinking,
        "tokens_read_back": reply.read_back,
        "seconds_answering": round(reply.answering, 3),
        "finish": reply.answer.finish,
    }


def tell_cut(finish: str, max_new_tokens: int, out: Output) -> None:
    """Say why an answer has no end of its own."""
    if finish == "length":
        out.note(f"the answer was cut at {max_new_tokens} tokens (--max-new-tokens)")
    if finish == "repetition":
        out.note("the answer repeated itself without end and was stopped (--let-repeat)")


def tell_citations(reply: "Reply", out: Output) -> None:
    """The sentences that the answer rests on, numbered, under it."""
    from infllm.cli.text import one_line

    for number, citation in enumerate(reply.citations, start=1):
        mark = "" if citation.verified else " (not found word for word)"
        out.note(f'[{number}] {citation.place}: "{one_line(citation.quote)}"{mark}')


def tell_thinking(answer: "Answer", out: Output) -> None:
    """Say what of an answer was left out because it was thinking."""
    from infllm.cli.text import plural

    if not answer.tokens_thinking:
        return
    left_out = f"{plural(answer.tokens_thinking, 'token')} of thinking left out (--show-thinking)"
    if not answer.text and answer.finish in NO_ANSWER:
        out.warn(f"{left_out}: it {NO_ANSWER[answer.finish]}, and no answer came")
    else:
        out.note(left_out)


def tell_finish(finish: str, max_new_tokens: int, out: Output) -> None:
    """Say when an answer did not end by itself; Ctrl-C sets the status."""
    tell_cut(finish, max_new_tokens, out)
    if finish == "interrupted":
        out.warn("interrupted: the answer above is not complete")
        raise typer.Exit(ExitCode.INTERRUPTED)
