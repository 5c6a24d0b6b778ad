"""LlamaIndex's engines, postprocessors and agents with only the LLM replaced."""

import asyncio
import logging

import pytest
from llama_index.core import Document, PromptTemplate, SummaryIndex, TreeIndex, VectorStoreIndex
from llama_index.core.agent.workflow import ReActAgent
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.evaluation import CorrectnessEvaluator
from llama_index.core.extractors import DocumentContextExtractor
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.postprocessor import LLMRerank, PIINodePostprocessor
from llama_index.core.prompts import RichPromptTemplate
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import (
    ImageNode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.tools import RetrieverTool
from pydantic import BaseModel

from finch_integrations import (
    ConfigurationError,
    ContextTooLongError,
    FinchError,
    InvalidInputError,
)
from finch_integrations.llama_index import FinchLLM, FinchNodeRetriever, FinchSynthesizer
from tests.swap_in.engines import TEXTS, Q, RecorderLLM, nodes
from tests.swap_in.test_prompts import PARAGRAPH, read_by_the_model, texts_of

# LlamaIndex's own use of pydantic.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning"),
]

BLANK = [TextNode(text="", id_="blank", metadata={"file": "x"}), ImageNode(image="abc", id_="i")]


@pytest.fixture(autouse=True)
def _thread_loop(thread_loop):
    """Every test here may run LlamaIndex's coroutines."""


@pytest.fixture
def llm():
    return RecorderLLM()


@pytest.fixture
def index():
    return VectorStoreIndex(nodes(), embed_model=MockEmbedding(embed_dim=8))


def scored(*further):
    return [NodeWithScore(node=node, score=1.0) for node in [*nodes(), *further]]


def is_untouched(call, *texts):
    """Whether the prompt goes through with all texts in it."""
    read = read_by_the_model(call.request)
    return call.source == "none" and all(text.strip() in read for text in texts)


CHOICES = "Doc: 3, Relevance: 9\nDoc: 4, Relevance: 8\nDoc: 1, Relevance: 3"


@pytest.mark.parametrize("prompt", ["default", "own", "text"])
def test_a_reranker_s_numbers_and_texts_stay_together(llm, prompt):
    llm.will_say(CHOICES)
    found = scored(TextNode(text=TEXTS[0], id_="twice"))
    options = {}
    if prompt == "own":
        options["choice_select_prompt"] = RichPromptTemplate(
            "Choose!{% for m in context_messages %}\nDocument {{ loop.index }}:\n"
            "{% for b in m.blocks %}{{ b.text }}{% endfor %}{% endfor %}\nQuery: {{ query_str }}"
        )
    ranked = LLMRerank(llm=llm, top_n=3, **options).postprocess_nodes(
        found, query_bundle=QueryBundle(Q)
    )
    assert [(node.node_id, node.score) for node in ranked] == [("n2", 9), ("twice", 8), ("n0", 3)]
    (call,) = llm.calls
    assert is_untouched(call, *TEXTS)
    read = read_by_the_model(call.request)
    assert read.count(TEXTS[0].strip()) == 2
    places = [read.rindex(f"Document {n}:") for n in (1, 2, 3, 4)]
    assert places == sorted(places)


def test_a_reranker_with_one_text_for_all_nodes(llm):
    """As LLMs that are no chat models get it."""
    template = PromptTemplate("Choose.\n{context_str}\nQuestion: {query_str}\nAnswer:\n")
    context = "\n\n".join(f"Document {n}:\n{text}" for n, text in enumerate(TEXTS, start=1))
    llm.predict(template, context_str=context, query_str=Q)
    assert is_untouched(llm.calls[0], context)


def test_an_evaluator_s_rubric_is_no_document(llm):
    llm.will_say("4.0\nGood.")
    said, right = "It leaves at nine. " * 30, "At nine o'clock. " * 30
    result = CorrectnessEvaluator(llm=llm).evaluate(query=Q, response=said, reference=right)
    assert result.score == 4.0
    assert is_untouched(llm.calls[0], said, right, "evaluation system")


def test_a_query_to_be_rewritten_is_no_document(llm):
    query = Q + " Please. " * 100
    HyDEQueryTransform(llm=llm)(QueryBundle(query))
    assert is_untouched(llm.calls[0], query)


def test_texts_that_are_summarised_or_rewritten_are_no_documents(llm, index):
    index.as_retriever(similarity_top_k=3).retrieve(Q)  # also where they have been retrieved
    TreeIndex(nodes(), llm=llm, num_children=2)
    llm.will_say('Hello [NAME1]\nOutput Mapping:\n{"NAME1": "Bob"}')
    text = "Hello Bob. " + PARAGRAPH * 5
    PIINodePostprocessor(llm=llm).postprocess_nodes(
        [NodeWithScore(node=TextNode(text=text), score=1)]
    )
    first, second, masked = llm.calls
    assert is_untouched(first, *TEXTS[:2])
    assert is_untouched(second, TEXTS[2])
    assert is_untouched(masked, text, "Mask out the PII")


def test_what_is_no_context_passes_strict(llm):
    llm.strict = True
    HyDEQueryTransform(llm=llm)(QueryBundle(Q))
    with pytest.raises(InvalidInputError, match="strict is on"):
        llm.complete("What is it?")
    with pytest.raises(InvalidInputError, match="strict is on"):
        llm.predict(PromptTemplate("Notes: {notes}\nQuestion: {query_str}"), notes="x", query_str=Q)


@pytest.mark.parametrize("mode", ["condense_plus_context", "condense_question", "context"])
@pytest.mark.parametrize("how", ["sync", "async", "stream"])
def test_strict_chat_engines_answer_a_second_turn(llm, index, mode, how):
    llm.strict = True
    memory = ChatMemoryBuffer.from_defaults(token_limit=100_000)
    engine = index.as_chat_engine(chat_mode=mode, llm=llm, similarity_top_k=3, memory=memory)
    for question in (Q, "And on Mondays?"):
        if how == "sync":
            engine.chat(question)
        elif how == "async":
            asyncio.get_event_loop().run_until_complete(engine.achat(question))
        else:
            list(engine.stream_chat(question).response_gen)
    sources = [call.source for call in llm.calls]
    assert sources == ["template", *(["none"] if mode != "context" else []), "template"]
    assert all(text.strip() in "".join(texts_of(llm.calls[-1])) for text in TEXTS)


def test_strict_fusion_retrievers_ask_for_queries(llm, index):
    llm.strict = True
    retriever = QueryFusionRetriever(
        [index.as_retriever(similarity_top_k=3)], llm=llm, num_queries=2, use_async=False
    )
    RetrieverQueryEngine.from_args(retriever, llm=llm).query(Q)
    assert [call.source for call in llm.calls] == ["none", "template"]
    # What comes after a retriever, or after one that failed, is no step of it.
    broken = QueryFusionRetriever([None], llm=llm, num_queries=2, use_async=False)
    with pytest.raises(AttributeError):
        broken.retrieve(Q)
    with pytest.raises(InvalidInputError, match="strict is on"):
        llm.complete("What is it?")


def test_blank_nodes_and_images_are_set_aside(llm):
    FinchSynthesizer(llm=llm).synthesize(Q, scored(*BLANK))
    (call,) = llm.calls
    assert [document.id for document in call.request.documents] == ["n0", "n1", "n2"]
    retriever = FinchNodeRetriever.from_nodes([*BLANK, *nodes()])
    assert {node.node_id for node in retriever.retrieve("boat doors code")} == {"n0", "n1", "n2"}
    with pytest.raises(InvalidInputError, match="there is no document"):
        FinchNodeRetriever.from_nodes(BLANK)


def test_an_image_in_an_old_turn_does_not_fail_the_call(llm):
    image = ImageBlock(url="http://example.org/a.png")
    old = ChatMessage(role="user", blocks=[TextBlock(text="What is this?"), image])
    chat = [old, ChatMessage(role="assistant", content="A boat.")]
    llm.chat([*chat, ChatMessage(role="user", content=Q)])
    assert llm.calls[0].request.messages[0]["content"] == "What is this?\n[image]"
    with pytest.raises(InvalidInputError, match="message 1 holds a ImageBlock"):
        llm.chat([old])


class Time(BaseModel):
    """When it leaves."""

    hour: int


def predict(llm, how, prompt, **values):
    """One of the four ways to an object."""

    async def stream():
        return [one async for one in await llm.astream_structured_predict(Time, prompt, **values)]

    if how == "whole":
        return llm.structured_predict(Time, prompt, **values)
    if how == "stream":
        return list(llm.stream_structured_predict(Time, prompt, **values))
    answer = stream() if how == "async stream" else llm.astructured_predict(Time, prompt, **values)
    return asyncio.get_event_loop().run_until_complete(answer)


@pytest.mark.parametrize("how", ["whole", "stream", "async", "async stream"])
def test_structured_predictions_raise_the_same_error(llm, how):
    llm.will_say('{"hour": "nine"}')
    prompt = PromptTemplate("{context_str}\n{query_str}")
    values = {"context_str": TEXTS[0], "query_str": Q}
    with pytest.raises(FinchError):
        predict(llm, how, prompt, **values)
    assert llm.calls[0].source == "template"


@pytest.mark.parametrize("how", ["whole", "stream", "async", "async stream"])
def test_structured_predictions_refuse_wrong_options_alike(llm, how):
    prompt = PromptTemplate("{context_str}\n{query_str}")
    values = {"context_str": TEXTS[0], "query_str": Q, "llm_kwargs": {"tmperature": 1}}
    with pytest.raises(ConfigurationError, match="takes no option 'tmperature'"):
        predict(llm, how, prompt, **values)


def test_the_document_context_extractor_works(llm):
    store = SimpleDocumentStore()
    document = Document(text="\n\n".join(TEXTS), id_="doc")
    store.add_documents([document])
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="doc")}
    extractor = DocumentContextExtractor(
        store, llm=llm, max_context_length=100_000, show_progress=False
    )
    node = TextNode(text=TEXTS[0], relationships=source)
    run = asyncio.get_event_loop().run_until_complete
    assert run(extractor.aextract([node])) == [{"context": "Fine."}]
    (call,) = llm.calls
    assert texts_of(call) == [document.text.strip()]
    assert TEXTS[0].strip() in read_by_the_model(call.request)


def test_transport_options_are_accepted_without_effect(llm):
    llm.chat([ChatMessage(role="user", content=Q)], extra_headers={"a": "b"}, timeout=5)
    assert FinchLLM(api_key="x", request_timeout=5, extra_body={}, default_headers={}).model


def test_a_react_agent_s_retriever_tool_is_compressed(llm, index):
    tool = RetrieverTool.from_defaults(
        index.as_retriever(similarity_top_k=3), name="search", description="Search."
    )
    llm.will_say(
        'Thought: I need a tool.\nAction: search\nAction Input: {"input": "boat"}',
        "Thought: I can answer without using any more tools.\nAnswer: At nine.",
    )
    agent = ReActAgent(tools=[tool], llm=llm, streaming=False)

    async def run():
        memory = ChatMemoryBuffer.from_defaults(token_limit=100_000)
        return str(await agent.run(Q, memory=memory))

    assert asyncio.get_event_loop().run_until_complete(run()) == "At nine."
    first, second = llm.calls
    assert (first.source, second.source) == ("none", "evidence")
    assert [text.strip() in "".join(texts_of(second)) for text in TEXTS] == [True] * 3
    assert second.request.messages[-1]["content"] == Q
    assert "search" in first.request.messages[0]["content"]


# Templates


OWN = {"notes": "context", "ask": "query"}


@pytest.mark.parametrize("how", ["predict", "structured", "engine"])
def test_own_names_of_variables_are_an_option(how):
    llm = RecorderLLM(template_variables=OWN).will_say('{"hour": 9}')
    prompt = PromptTemplate("Be brief. Notes:\n{notes}\n\nAsk: {ask}\nIn German.")
    values = {"notes": "\n\n".join(TEXTS), "ask": Q}
    if how == "predict":
        llm.predict(prompt, **values)
    elif how == "structured":
        llm.structured_predict(Time, prompt, **values)
    else:
        llm.as_structured_llm(Time).predict(prompt, **values)
    (call,) = llm.calls
    assert call.source == "template"
    assert texts_of(call) == ["\n\n".join(TEXTS).strip()]
    assert call.request.messages[-1]["content"] == Q
    read = read_by_the_model(call.request)
    assert all(words in read for words in ("Be brief. Notes:", "Ask:", "In German."))


def test_wrong_kinds_of_variables_are_named():
    with pytest.raises(ConfigurationError, match=r"'context' or 'query', got 'text' for 'notes'"):
        FinchLLM(template_variables={"notes": "text"})


MAPPED = {
    "mapped names": PromptTemplate(
        "Notes:\n{notes}\n\nAsk: {ask}",
        template_var_mappings={"context_str": "notes", "query_str": "ask"},
    ),
    "sliced": RichPromptTemplate("Notes:\n{{context_str[:300]}}\n\nAsk: {{query_str}}"),
    "shortened by a function": PromptTemplate(
        "Notes:\n{context_str}\n\nAsk: {query_str}",
        function_mappings={"context_str": lambda **values: values["context_str"][:300]},
    ),
}


@pytest.mark.parametrize("name", MAPPED)
def test_templates_that_change_the_context(llm, name):
    engine = SummaryIndex(nodes()).as_query_engine(llm=llm, text_qa_template=MAPPED[name])
    engine.query(Q)
    (call,) = llm.calls
    assert call.source == ("template" if name == "mapped names" else "evidence")
    assert call.request.documents
    assert call.request.messages[-1]["content"] == Q
    assert "Notes:" in read_by_the_model(call.request)


def test_numbered_sources_of_citations_are_documents(llm, index):
    engine = CitationQueryEngine.from_args(index, llm=llm, similarity_top_k=3)
    engine.query(Q)
    (call,) = llm.calls
    assert call.source == "template"
    assert all(text.strip()[:100] in "".join(texts_of(call)) for text in TEXTS)


# History


def history(turns):
    chat = [ChatMessage(role="system", content="Be kind.")]
    for n in range(turns):
        chat.append(ChatMessage(role="user", content=f"Question {n}?"))
        chat.append(ChatMessage(role="assistant", content=f"Answer {n}."))
    return [*chat, ChatMessage(role="user", content=Q)]


@pytest.mark.parametrize("documents", [None, TEXTS])
def test_a_history_that_outgrows_the_window_is_trimmed_oldest_first(engine, caplog, documents):
    options = {} if documents is None else {"documents": documents}
    llm = FinchLLM(engine=engine, max_tokens=8, target_size=60)
    whole = llm.chat(history(3), **options)
    assert "trimmed_messages" not in whole.raw["finch"]
    for _ in range(2):
        long = llm.chat(history(100), **options)
    trimmed = long.raw["finch"]["trimmed_messages"]
    assert 0 < trimmed < 200
    assert trimmed % 2 == 0
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert sum("oldest messages of a chat were left out" in text for text in warnings) == 1
    # What stays is the end of the chat, and hardly more would have fitted.
    chat = history(100)
    kept = [chat[0], *chat[1 + trimmed :]]
    assert llm.chat(kept, **options).message.content == long.message.content
    assert "trimmed_messages" not in llm.chat(kept, **options).raw["finch"]
    more = [chat[0], *chat[1 + trimmed - 2 :]]
    assert llm.chat(more, **options).raw["finch"]["trimmed_messages"] == 2


def test_the_one_exchange_before_a_question_is_left_out_if_it_does_not_fit(engine):
    llm = FinchLLM(engine=engine, max_tokens=8)
    exchange = [
        ChatMessage(role="user", content="x" * engine.window),
        ChatMessage(role="assistant", content="Long."),
    ]
    question = ChatMessage(role="user", content=Q)
    answer = llm.chat([*exchange, question])
    assert answer.raw["finch"]["trimmed_messages"] == 2
    assert answer.message.content == llm.chat([question]).message.content


def test_a_question_that_does_not_fit_alone_is_an_error(engine):
    llm = FinchLLM(engine=engine, max_tokens=8)
    question = ChatMessage(role="user", content="x" * engine.window)
    with pytest.raises(ContextTooLongError):
        llm.chat([*history(3)[:-1], question])
