"""FinchRAG and ChooseThenGenerate with a generator elsewhere: what it gets, what is reported."""

import asyncio
from contextlib import closing

import pytest

from finch_integrations import (
    ChooseThenGenerate,
    ConfigurationError,
    Document,
    FinchRAG,
    OpenAIServer,
    ServerUnavailableError,
)
from finch_integrations.engine.prompt import INSTRUCTION
from finch_integrations.pipeline.ask import AskRequest
from finch_integrations.pipeline.document_tags import tag_document
from finch_integrations.pipeline.rag import WholeSet
from finch_integrations.pipeline.shared_engine import SharedEngine
from tests.peer import USAGE, Reply, serving

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

FILLER = "Nothing of that kind is said in here today. "
DOCUMENTS = [
    Document(FILLER * 4 + "The code of the store is 7316.\n\n" + FILLER * 3, id="a", title="Lab"),
    Document(FILLER * 8, id="b"),
    Document("Ask for the store code at the gate. " + FILLER, id="c"),
]
QUESTION = "What is the code of the store?"
BUDGET = {"target_size": 200}


@pytest.fixture
def peer():
    with serving(Reply(pieces=("The code of the store ", "is 7316."))) as found:
        yield found


@pytest.fixture
def rag(peer, engine):
    server = OpenAIServer(peer.url, "m", max_retries=0)
    return FinchRAG(
        WholeSet(DOCUMENTS), server, scorer=engine, system="Be brief.", compression=BUDGET
    )


def expected_prompt(engine, rated=QUESTION):
    kept = {}
    for excerpt in engine.extract(DOCUMENTS, rated, **BUDGET):
        kept.setdefault(excerpt.document_id, []).append(excerpt)
    written = []
    for document in DOCUMENTS:
        if document.id in kept:
            text, end = "", None
            for excerpt in kept[document.id]:
                if end is not None:
                    between = document.text[end : excerpt.start]
                    text += "\n[…]\n" if between.strip() else between
                text, end = text + excerpt.text, excerpt.end
            written.append(tag_document(text, {"id": document.id, "title": document.title}))
    return "\n".join(["<documents>", *written, f"</documents>\n\n{INSTRUCTION} {QUESTION}"])


def test_the_server_gets_the_passages_of_extract_before_the_question_and_nothing_else(
    rag, peer, engine
):
    rag.answer(QUESTION)
    (request,) = peer.requests
    assert request["body"]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": expected_prompt(engine)},
    ]


def test_a_follow_up_is_chosen_for_after_the_question_before_it(rag, peer, engine):
    earlier = "Whom do I ask at the gate?"
    history = ({"role": "user", "content": earlier}, {"role": "assistant", "content": "Them."})
    rag.answer(QUESTION, history=history)
    (request,) = peer.requests
    expected = expected_prompt(engine, rated=f"{earlier}\n{QUESTION}")
    assert expected != expected_prompt(engine)
    assert request["body"]["messages"] == [
        {"role": "system", "content": "Be brief."},
        *history,
        {"role": "user", "content": expected},
    ]


def test_the_scorer_reads_ahead(rag, engine):
    assert rag.read_ahead(DOCUMENTS) > 0
    stats = rag.answer(QUESTION).details.compression
    assert stats.read_tokens == 0 < stats.rated_tokens


def test_the_answer_has_citations_shares_and_counts(rag, engine):
    answer = rag.answer(QUESTION)
    selection = engine.select(DOCUMENTS, QUESTION, **BUDGET)
    assert answer.text == "The code of the store is 7316."
    assert [citation.document_id for citation in answer.citations] == ["a"]
    assert answer.details.excerpts == selection.excerpts
    assert answer.details.document_shares == selection.document_shares
    stats = answer.details.compression
    assert (stats.document_tokens, stats.kept_tokens) == (
        selection.stats.document_tokens,
        selection.stats.kept_tokens,
    )
    left_out = stats.document_tokens - stats.kept_tokens
    assert answer.details.prompt_tokens == USAGE["prompt_tokens"] + left_out


def test_async_answers_and_streams_are_the_same(rag, peer):
    answer = rag.answer(QUESTION)
    later = asyncio.run(rag.aanswer(QUESTION))
    assert (later.text, later.citations) == (answer.text, answer.citations)
    assert peer.requests[0]["body"] == peer.requests[1]["body"]


def test_documents_that_fit_are_sent_whole_and_read_by_nobody(peer, engine):
    rag = FinchRAG(
        WholeSet(DOCUMENTS),
        ChooseThenGenerate(OpenAIServer(peer.url, "m"), engine),
        compression={"target_size": 10_000},
    )
    answer = rag.answer(QUESTION)
    assert answer.details.compression.rated_tokens == 0
    sent = peer.requests[0]["body"]["messages"][-1]["content"]
    assert all(document.text.strip() in sent for document in DOCUMENTS)


def test_the_budget_is_in_the_generators_tokens_if_it_has_a_tokenizer(peer, engine):
    words = lambda text: len(text.split())  # noqa: E731
    handle = ChooseThenGenerate(OpenAIServer(peer.url, "m"), engine, count_tokens=words)
    assert handle.count_tokens("one two") == 2
    rag = FinchRAG(WholeSet(DOCUMENTS), handle, compression={"target_size": 30})
    kept = rag.answer(QUESTION).details.excerpts
    assert 10 < sum(words(excerpt.text) for excerpt in kept) <= 30


@pytest.mark.parametrize("counting", [{"count_tokens": lambda t: 3 * len(t)}, {"token_ratio": 3}])
def test_a_rag_counts_its_budget_as_its_generator_does(counting, peer, engine):
    server = OpenAIServer(peer.url, "m")
    options = {"scorer": engine, "compression": {"target_size": 300}}
    rag = FinchRAG(WholeSet(DOCUMENTS), server, **options, **counting)
    details = rag.answer(QUESTION).details
    plain = FinchRAG(WholeSet(DOCUMENTS), server, **options).answer(QUESTION).details
    # The tiny scorer has a token per byte.
    assert 200 < 3 * sum(len(excerpt.text) for excerpt in details.excerpts) <= 300
    assert sum(len(excerpt.text) for excerpt in plain.excerpts) > 200


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda server, engine: engine, "its own tokenizer"),
        (lambda server, engine: ChooseThenGenerate(server, engine), "says itself"),
    ],
)
def test_how_to_count_is_said_only_to_a_generator_elsewhere(make, message, peer, engine):
    model = make(OpenAIServer(peer.url, "m"), engine)
    with pytest.raises(ConfigurationError, match=message):
        FinchRAG(WholeSet(DOCUMENTS), model, token_ratio=2.0)


@pytest.mark.parametrize(
    ("counting", "message"),
    [
        ({"token_ratio": 0}, "above 0"),
        ({"token_ratio": 2.0, "count_tokens": len}, "give one"),
    ],
)
def test_a_wrong_way_to_count_is_refused_at_once(counting, message, peer, engine):
    with pytest.raises(ConfigurationError, match=message):
        FinchRAG(WholeSet(DOCUMENTS), OpenAIServer(peer.url, "m"), scorer=engine, **counting)


def test_leaving_the_answer_closes_the_connection(engine):
    with serving(Reply(pieces=("a",) * 50, between=0.2)) as peer:
        rag = FinchRAG(
            WholeSet(DOCUMENTS), OpenAIServer(peer.url, "m"), scorer=engine, compression=BUDGET
        )
        with closing(rag.stream(QUESTION)) as pieces:
            next(pieces)
        assert peer.left.wait(5)


def test_a_server_that_fails_is_this_packages_error(engine):
    with serving(Reply(status=503, content="loading")) as peer:
        server = OpenAIServer(peer.url, "m", max_retries=0)
        rag = FinchRAG(WholeSet(DOCUMENTS), server, scorer=engine, compression=BUDGET)
        with pytest.raises(ServerUnavailableError, match="loading"):
            rag.answer(QUESTION)


def test_a_chat_without_documents_goes_to_the_generator_as_it_is(peer, engine):
    handle = ChooseThenGenerate(OpenAIServer(peer.url, "m"), engine)
    messages = ({"role": "user", "content": "Hello!"},)
    assert list(handle.stream(AskRequest(messages=messages)))[-1].details.compression is None
    assert peer.requests[0]["body"]["messages"] == list(messages)


def test_a_shared_engine_is_a_generator_too(engine):
    """Local transformers as the generator of a prompt in text, with another model choosing."""
    handle = ChooseThenGenerate(SharedEngine(engine), engine)
    rag = FinchRAG(WholeSet(DOCUMENTS), handle, compression=BUDGET, sampling={"max_tokens": 5})
    prompt = {"role": "user", "content": expected_prompt(engine)}
    said = "".join(piece.text for piece in engine.chat([prompt], max_tokens=5))
    assert rag.answer(QUESTION).text == said


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"compression": {"method": "finch"}}, "prunes the cache"),
        ({"compression": {"max_kv_bytes": 10**6}}, "generated elsewhere"),
        ({"keep_context": True}, "no compressed context"),
    ],
)
def test_what_needs_the_generators_cache_is_refused_at_once_with_the_reason(
    peer, engine, options, reason
):
    with pytest.raises(ConfigurationError, match=reason):
        FinchRAG(WholeSet(DOCUMENTS), OpenAIServer(peer.url, "m"), scorer=engine, **options)


def test_two_scorers_are_refused(peer, engine):
    handle = ChooseThenGenerate(OpenAIServer(peer.url, "m"), engine)
    with pytest.raises(ConfigurationError, match="two scorers"):
        FinchRAG(WholeSet(DOCUMENTS), handle, scorer=engine)


def test_several_questions_are_answered_elsewhere_one_after_another(rag, peer):
    questions = [QUESTION, "Where is the code given out?"]
    expected = [rag.answer(question) for question in questions]
    for found in (rag.batch(questions), asyncio.run(rag.abatch(questions))):
        assert [one.text for one in found] == [one.text for one in expected]
        for one, other in zip(found, expected, strict=True):
            kept, wanted = one.details.excerpts, other.details.excerpts
            assert [excerpt.text for excerpt in kept] == [excerpt.text for excerpt in wanted]
