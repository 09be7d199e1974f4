"""One question under a reader: `infllm ask book.txt "..." --reader infiniretri`."""

from infllm.cli.options import DocumentFlags, EngineChoice, Sampling
from infllm.cli.output import Output
from infllm.cli.replies import answer_fields, tell_citations, tell_finish, tell_thinking
from infllm.cli.text import count, seconds, size


def ask_reader(
    out: Output,
    choice: EngineChoice,
    sources: list[str],
    question: str,
    reader: str,
    documents: DocumentFlags,
    sampling: Sampling,
    budget: int | None,
) -> None:
    """Read the documents for `question`, and answer it; nothing is kept for the next one.

    Raises:
        Interrupted: Ctrl-C; says how far reading came.
    """
    from infllm.cli.models.real_hint import tell_of_real_models
    from infllm.cli.opening import preset_name
    from infllm.cli.progress import peak_memory_bytes
    from infllm.cli.readers.answering import ReadAnew
    from infllm.cli.reading import with_prompt_stops
    from infllm.cli.remember import prepare, tail_tokens
    from infllm.cli.sources import all_left_out
    from infllm.cli.tasks.drafting import tell_of_drafts

    prepared = prepare(
        choice, sources, documents, out, question=question, budget=budget, keep=False
    )
    with prepared.engine as engine:
        sampling = with_prompt_stops(engine, sampling)
        tell_of_drafts(engine, sampling, out)
        reading = ReadAnew(engine, prepared.documents(), reader, out)
        reply = reading.ask(question, sampling, out.write)
        out.line()
        name = preset_name(engine.config, choice)
        given = reading.unread.given + tail_tokens(engine, question)
        collection = reading.passages.collection
        out.object(
            {
                **answer_fields(question, reply),
                "sources": [document.source for document in collection.documents],
                "left_out": all_left_out(collection),
                "tokens_given": given,
                "tokens_read": reply.tokens,
                "tokens_truncated": reading.unread.truncated,
                "seconds": round(reply.seconds, 3),
                "tokens_per_second": round(reply.tokens / max(reply.seconds, 1e-9), 1),
                "memory": None,
                "reused": False,
                "preset": name,
                "policy": None,
                "reader": reader,
                "device": str(engine.device),
                "peak_memory_bytes": peak_memory_bytes(),
            }
        )
        tell_citations(reply, out)
    out.note(
        f"read {count(reply.tokens)} tokens for {count(given)} in {seconds(reply.seconds)}, "
        f"answered in {seconds(reply.answering)}; {name}, {reader}, "
        f"peak memory {size(peak_memory_bytes())}"
    )
    tell_thinking(reply.answer, out)
    tell_of_real_models(engine.config, out)
    tell_finish(reply.answer.finish, sampling.max_new_tokens, out)
