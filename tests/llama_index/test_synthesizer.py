"""FinchSynthesizer: nodes with ids and scores to the model, kept shares back."""

import pytest
from llama_index.core import Response
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from finch_integrations import ConfigurationError, FinchError, InvalidInputError
from finch_integrations.llama_index import FinchLLM, FinchSynthesizer
from tests.llama_index.conftest import say
from tests.llama_index.test_query_engines import WAYS, Place, obedient  # noqa: F401
from tests.tiny import text_of

Q = "Where is it?"


async def run(synthesizer, nodes, how, **kwargs):
    if how.startswith("async"):
        response = await synthesizer.asynthesize(Q, nodes, **kwargs)
    else:
        response = synthesizer.synthesize(Q, nodes, **kwargs)
    if isinstance(response, StreamingResponse):
        return response, "".join(response.response_gen)
    if isinstance(response, AsyncStreamingResponse):
        return response, "".join([piece async for piece in response.response_gen])
    assert isinstance(response, Response)
    return response, response.response


@pytest.mark.parametrize("how", WAYS)
async def test_nodes_are_documents_of_their_own(llm, retriever, answer, how):
    nodes = retriever.retrieve(Q)
    synthesizer = FinchSynthesizer(llm=llm, streaming="stream" in how)
    response, text = await run(synthesizer, nodes, how)
    documents = [
        {"text": n.node.get_content(MetadataMode.LLM), "id": n.node.node_id} for n in nodes
    ]
    assert text == answer(documents, Q)
    assert response.source_nodes == nodes
    statistics = response.metadata["finch"]
    assert statistics["documents_from"] == "argument"
    assert statistics["kept_tokens"] == 60
    scores = statistics["document_scores"]
    assert [score["document_id"] for score in scores] == [node.node.node_id for node in nodes]
    assert sum(score["kept_tokens"] for score in scores) == pytest.approx(60)
    for node in nodes:
        assert response.metadata[node.node.node_id] == node.node.metadata


def test_statistics_of_a_stream_come_at_its_end(llm, retriever):
    response = FinchSynthesizer(llm=llm, streaming=True).synthesize(Q, retriever.retrieve(Q))
    next(response.response_gen)
    assert response.metadata["finch"] == {}
    list(response.response_gen)
    assert response.metadata["finch"]["documents"] == 3


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_in_a_query_engine_it_is_one_call_and_one_event(llm, index, calls, how):
    engine = index.as_query_engine(
        llm=llm, response_synthesizer=FinchSynthesizer(llm=llm), similarity_top_k=3
    )
    response = await engine.aquery(Q) if how == "async" else engine.query(Q)
    assert len(response.metadata["finch"]["document_scores"]) == 3
    assert [node.score for node in response.source_nodes] != [None] * 3
    assert len(calls) == 1


def test_options_are_of_every_call(llm, retriever, engine):
    nodes = retriever.retrieve(Q)
    synthesizer = FinchSynthesizer(llm=llm, target_size=90, max_tokens=3, instruction="Say:")
    response = synthesizer.synthesize(Q, nodes)
    context = engine.compress(
        [n.node.get_content(MetadataMode.LLM) for n in nodes], Q, target_size=90, instruction="Say:"
    )
    assert response.response == engine.generate(context, max_tokens=3).text


def test_a_template_formats_the_question(llm, retriever, answer):
    nodes = retriever.retrieve(Q)
    texts = [node.node.get_content(MetadataMode.LLM) for node in nodes]
    template = ChatPromptTemplate([say("Be {mood}.", "system"), say("Say: {query_str}")])
    synthesizer = FinchSynthesizer(llm=llm)
    synthesizer.update_prompts({"text_qa_template": template})
    assert synthesizer.get_prompts()["text_qa_template"] == template
    response = synthesizer.synthesize(Q, nodes, mood="brief")
    assert response.response == answer(texts, f"Say: {Q}", system="Be brief.")
    llm.system_prompt = "Be kind."
    response = FinchSynthesizer(llm=llm).synthesize(Q, nodes)
    assert response.response == answer(texts, Q, system="Be kind.")


@pytest.mark.parametrize("how", WAYS)
async def test_no_nodes_give_the_empty_response(llm, how):
    synthesizer = FinchSynthesizer(llm=llm, streaming="stream" in how, empty_response="Nothing.")
    assert (await run(synthesizer, [], how))[1] == "Nothing."


def test_additional_sources_are_named_but_not_read(llm, retriever):
    first, *others = retriever.retrieve(Q)
    response = FinchSynthesizer(llm=llm).synthesize(Q, [first], additional_source_nodes=others)
    assert response.source_nodes == [first, *others]
    assert response.metadata["finch"]["documents"] == 1


def test_texts_can_be_given_without_nodes(llm, answer):
    texts = [text_of(150, seed=1), text_of(150, seed=2)]
    assert FinchSynthesizer(llm=llm).get_response(Q, texts) == answer(texts, Q)


@pytest.mark.usefixtures("obedient")
@pytest.mark.parametrize("how", ["sync", "async"])
async def test_output_classes(engine, retriever, how):
    llm = FinchLLM(engine=engine, max_tokens=30, target_size=60)
    synthesizer = FinchSynthesizer(llm=llm, output_cls=Place)
    query_engine = RetrieverQueryEngine(retriever, synthesizer)
    response = await query_engine.aquery(Q) if how == "async" else query_engine.query(Q)
    assert response.response == Place(name="x")
    assert len(response.metadata["finch"]["document_scores"]) == 3


def test_an_answer_that_breaks_the_schema_is_an_error(llm, retriever):
    with pytest.raises(FinchError, match="does not follow the output class's schema"):
        FinchSynthesizer(llm=llm, output_cls=Place).synthesize(Q, retriever.retrieve(Q))


def test_a_node_without_text_is_named(llm):
    node = NodeWithScore(node=TextNode(text=" ", id_="n"), score=1.0)
    with pytest.raises(InvalidInputError, match="all of documents are blank"):
        FinchSynthesizer(llm=llm).synthesize(Q, [node])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"llm": MockLLM()}, "needs a FinchLLM, got MockLLM"),
        ({"target": 5}, "a call takes no option 'target'"),
        ({"documents": []}, "documents are the nodes"),
        ({"streaming": True, "output_cls": Place}, "cannot be streamed"),
        ({"text_qa_template": PromptTemplate("{context_str}")}, "variable 'context_str'"),
    ],
)
def test_wrong_options_are_named(llm, options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        FinchSynthesizer(**{"llm": llm, **options})
