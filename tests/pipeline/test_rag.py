"""FinchRAG on a tiny model: what it finds is what the engine is asked about."""

import asyncio

import pytest

from finch_integrations import (
    CompressionConfig,
    ConfigurationError,
    Document,
    FinchEngine,
    InvalidInputError,
    PassageStore,
)
from finch_integrations.pipeline.ask import AnswerDetails, AnswerPiece
from finch_integrations.pipeline.rag import FinchRAG, WholeSet, _piece
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.retrieval import HybridRetriever
from tests.encoders import HashEncoder
from tests.tiny import make_model

DOCUMENTS = [
    Document(
        "Hints.\n\n# Doors\n\nThe code of the chemical store is 7316.\n\n# Boats\n\nIt leaks.",
        id="a",
        metadata={"source": "a.md"},
    ),
    Document("The red boat is kept in the long shed.", id="b"),
    Document("Food is served at seven.", id="c", metadata={"kind": "food"}),
]
QUESTION = "What is the code of the store?"
COMPRESSION = {"target_size": 40, "read_size": "all"}
SAMPLING = {"max_tokens": 8}


@pytest.fixture
def retriever():
    return HybridRetriever.from_documents(DOCUMENTS, encoder=HashEncoder(), chunk_size=50)


@pytest.fixture
def rag(retriever, engine):
    return FinchRAG(retriever, engine, compression=COMPRESSION, sampling=SAMPLING)


async def collect(items):
    return [item async for item in items]


@pytest.mark.parametrize("options", [{}, {"return_parents": True}, {"top_k": 1}])
def test_the_answer_is_the_engines_over_what_the_retriever_finds(rag, retriever, engine, options):
    documents = retriever.retrieve(QUESTION, **options)
    context = engine.compress(documents, QUESTION, **COMPRESSION)
    expected = engine.generate(context, **SAMPLING)
    pieces = list(rag.stream(QUESTION, **options))
    answer = pieces[-1].answer
    assert "".join(piece.text for piece in pieces) == answer.text == expected.text
    assert [piece.answer for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert list(answer.documents) == documents
    assert answer.details.document_shares == context.document_shares
    assert answer.details.compression.kept_tokens == context.stats.kept_tokens


def test_at_once_and_async_answers_are_the_streamed_one(rag):
    streamed = list(rag.stream(QUESTION))[-1].answer
    assert rag.answer(QUESTION).text == streamed.text
    assert asyncio.run(rag.aanswer(QUESTION)).text == streamed.text
    pieces = asyncio.run(collect(rag.astream(QUESTION)))
    assert "".join(piece.text for piece in pieces) == streamed.text
    assert pieces[-1].answer.documents == streamed.documents


def test_several_questions_are_answered_as_one_by_one_and_the_documents_read_once(model, tokenizer):
    def make():
        engine = FinchEngine(model, tokenizer, store=PassageStore(memory_bytes=0))
        return FinchRAG(WholeSet(DOCUMENTS), engine, compression=COMPRESSION, sampling=SAMPLING)

    questions = [QUESTION, "Where is the red boat?", "When is food served?"]
    expected = [make().answer(question) for question in questions]
    for found in (make().batch(questions), asyncio.run(make().abatch(questions))):
        assert [one.text for one in found] == [one.text for one in expected]
        assert [one.citations for one in found] == [one.citations for one in expected]
        for one, other in zip(found, expected, strict=True):
            kept, wanted = one.details.excerpts, other.details.excerpts
            assert [excerpt.text for excerpt in kept] == [excerpt.text for excerpt in wanted]
        read = [one.details.compression.read_tokens for one in found]
        assert read == [expected[0].details.compression.read_tokens, 0, 0]
    assert make().batch([]) == []
    with pytest.raises(InvalidInputError, match="must be a list of questions"):
        make().batch(QUESTION)
    with pytest.raises(InvalidInputError, match="the question"):
        make().batch([QUESTION, ""])


def test_leaving_a_stream_stops_the_work(retriever, engine, model):
    lengths = []
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(1), with_kwargs=True
    )
    rag = FinchRAG(retriever, engine, compression=COMPRESSION, sampling={"max_tokens": 500})
    stream = rag.stream(QUESTION)
    next(stream)
    stream.close()
    rag.answer(QUESTION, top_k=1)  # after it: the worker has left the first answer
    hook.remove()
    # All of the second answer, and of the first one little more than its first token.
    assert 500 < len(lengths) < 700


def test_a_whole_set_is_answered_from_as_it_is(engine):
    rag = FinchRAG(WholeSet(DOCUMENTS), engine, compression=COMPRESSION, sampling=SAMPLING)
    expected = engine.generate(engine.compress(DOCUMENTS, QUESTION, **COMPRESSION), **SAMPLING)
    answer = rag.answer(QUESTION)
    assert answer.text == expected.text
    assert list(answer.documents) == DOCUMENTS
    with pytest.raises(ConfigurationError, match="has no option 'top_k'"):
        rag.answer(QUESTION, top_k=3)
    with pytest.raises(InvalidInputError, match="there is no document"):
        WholeSet([])


def test_the_budget_is_counted_in_the_answering_models_tokens(retriever, engine):
    """One byte is one token of this model, and a quarter of one by the estimate."""
    rag = FinchRAG(retriever, engine)
    lengths = [len(document.text) for document in retriever.retrieve(QUESTION)]
    budget = lengths[0] + lengths[1]
    fits = retriever.retrieve(QUESTION, max_document_tokens=budget, count_tokens=len)
    assert len(fits) == 2 < len(retriever.retrieve(QUESTION, max_document_tokens=budget))
    assert rag.retrieve(QUESTION, max_document_tokens=budget) == tuple(fits)
    assert rag.answer(QUESTION, max_document_tokens=budget).documents == tuple(fits)
    assert asyncio.run(rag.aretrieve(QUESTION, max_document_tokens=budget)) == tuple(fits)
    # Whoever gave the retriever a measure of its own means it.
    retriever.count_tokens = lambda text: 1
    assert len(rag.retrieve(QUESTION, max_document_tokens=3)) == 3


def test_a_model_is_not_loaded_to_search_without_a_budget(retriever):
    rag = FinchRAG(retriever, "./no-such-model")
    assert rag.retrieve(QUESTION) == tuple(retriever.retrieve(QUESTION))


def test_progress_is_reported_and_the_context_kept_only_if_asked_for(retriever, engine):
    seen = []
    compression = {**COMPRESSION, "chunk_length": 32}
    rag = FinchRAG(retriever, engine, compression=compression, sampling=SAMPLING, keep_context=True)
    details = rag.answer(QUESTION, progress=seen.append).details
    read = [state.tokens for state in seen]
    assert read == sorted(set(read))
    assert read[-1] == seen[-1].total_tokens
    assert len(read) > 3
    assert details.excerpts == details.context.excerpts != ()
    again = engine.generate(details.context, **SAMPLING)
    assert again.text == rag.answer(QUESTION).text
    assert FinchRAG(retriever, engine, sampling=SAMPLING).answer(QUESTION).details.context is None


def test_system_history_and_instruction_reach_the_model(retriever, engine):
    history = ({"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes?"})
    rag = FinchRAG(
        retriever, SharedEngine(engine), system="Be brief.", instruction="Read:", sampling=SAMPLING
    )
    context = engine.compress(
        retriever.retrieve(QUESTION),
        QUESTION,
        system="Be brief.",
        history=history,
        instruction="Read:",
    )
    details = rag.answer(QUESTION, history=history).details
    assert details.prompt_tokens == context.prompt_tokens


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        ([{"content": "Hi."}], "message 1 of the history must be a mapping with the role"),
        (["Hi."], "message 1 of the history must be a mapping with the role"),
        ([{"role": "user"}], "message 1 of the history must be a string, got NoneType"),
        ([{"role": "system"}], "the system text must be a string, got NoneType"),
    ],
)
def test_malformed_history_is_named(rag, history, reason):
    with pytest.raises(InvalidInputError, match=reason):
        rag.answer(QUESTION, history=history)


def test_a_retrievers_documents_without_ids_are_called_as_in_the_details(engine):
    class Unnamed:
        def retrieve(self, query, *, count_tokens, **options):
            return [Document("The boat leaks."), Document("No.", metadata={"source": "a.md"})]

    (*_, last) = FinchRAG(Unnamed(), engine, sampling=SAMPLING).stream(QUESTION)
    ids = [document.id for document in last.answer.documents]
    assert ids == [share.id for share in last.answer.details.document_shares] == ["doc-1", "a.md"]


def test_a_smaller_model_may_choose(retriever, engine, tokenizer):
    small = FinchEngine(make_model(num_hidden_layers=1), tokenizer)
    rag = FinchRAG(
        retriever,
        engine,
        scorer=small,
        compression=CompressionConfig(**COMPRESSION),
        sampling=SAMPLING,
    )
    scored = FinchEngine(engine.backbone.model, tokenizer, scorer=small)
    context = scored.compress(retriever.retrieve(QUESTION), QUESTION, **COMPRESSION)
    assert rag.answer(QUESTION).details.excerpts == context.excerpts != ()
    with pytest.raises(ConfigurationError, match="does nothing in the method 'finch'"):
        FinchRAG(retriever, engine, scorer=small, compression={"method": "finch"})
    with pytest.raises(ConfigurationError, match="target_size must be"):
        FinchRAG(retriever, engine, compression={"target_size": 0})


def test_a_filter_reaches_the_retriever(rag):
    answer = rag.answer(QUESTION, filter={"kind": "food"})
    assert [document.id for document in answer.documents] == ["c#1"]


def test_nothing_found_is_an_error_and_not_an_answer_without_documents(engine):
    rag = FinchRAG(HybridRetriever.from_documents(DOCUMENTS), engine)
    with pytest.raises(InvalidInputError, match="has nothing on 'zebra'"):
        rag.answer("zebra")
    with pytest.raises(InvalidInputError, match="the question is empty"):
        rag.answer(" ")
    with pytest.raises(InvalidInputError, match="has nothing on"):
        asyncio.run(rag.aanswer("zebra"))
    with pytest.raises(ConfigurationError, match="did you mean 'top_k'"):
        rag.answer("boat", topk=3)


def piece_of(text, documents):
    details = AnswerDetails(
        text=text,
        finish_reason="stop",
        prompt_tokens=1,
        generation_tokens=1,
        generation_seconds=1.0,
        compression=None,
        document_shares=(),
    )
    return _piece(AnswerPiece(text=text, details=details), tuple(documents))


@pytest.mark.parametrize("return_parents", [False, True])
def test_citations_name_file_section_and_place_in_the_whole_document(retriever, return_parents):
    documents = retriever.retrieve(QUESTION, return_parents=return_parents)
    text = "I read: the code of the chemical store is 7316. The red boat is kept in it."
    first, second = piece_of(text, documents).answer.citations
    assert (first.document_id, first.source, first.section) == ("a", "a.md", "Doors")
    assert first.text == "The code of the chemical store is 7316"
    assert DOCUMENTS[0].text[first.source_start : first.source_end] == first.text
    assert text[first.start : first.end] == "the code of the chemical store is 7316"
    assert (second.document_id, second.source, second.section) == ("b", "b", None)
    assert DOCUMENTS[1].text[second.source_start : second.source_end] == second.text


def test_a_chunk_inside_a_section_is_cited_under_the_heading_above_it():
    text = "# Boats\n" + "It is painted every year. " * 4 + "The oars are in the shed."
    search = HybridRetriever.from_documents([Document(text, id="x")], chunk_size=60)
    chunk = search.retrieve("oars")[0]
    assert "#" not in chunk.text
    (citation,) = piece_of("The oars are in the shed.", [chunk]).answer.citations
    assert citation.section == "Boats"
    assert text[citation.source_start : citation.source_end] == "The oars are in the shed"


def test_a_chunk_that_knows_its_place_in_a_book_is_cited_there():
    own = {"source": "book.md", "document_id": "book", "section": "Boats", "start_index": 500}
    chunks = [Document("The oars are in the shed.", metadata=own)]
    found = HybridRetriever.from_documents(chunks, chunk_size=None).retrieve("oars")
    (citation,) = piece_of("The oars are in the shed.", found).answer.citations
    assert (citation.document_id, citation.source) == ("book", "book.md")
    assert (citation.section, citation.source_start) == ("Boats", 500)
