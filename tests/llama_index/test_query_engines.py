"""Existing engines with only the LLM replaced: the context is compressed under the query."""

import pytest
import torch
from llama_index.core import Response, Settings, get_response_synthesizer
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.evaluation import FaithfulnessEvaluator
from llama_index.core.evaluation.faithfulness import DEFAULT_EVAL_TEMPLATE
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate, RichPromptTemplate
from llama_index.core.prompts.chat_prompts import (
    CHAT_REFINE_PROMPT,
    CHAT_TEXT_QA_PROMPT,
    TEXT_QA_SYSTEM_PROMPT,
)
from llama_index.core.query_engine import (
    CitationQueryEngine,
    RetrieverQueryEngine,
    SubQuestionQueryEngine,
)
from llama_index.core.query_engine.citation_query_engine import CITATION_QA_TEMPLATE
from llama_index.core.question_gen.types import BaseQuestionGenerator, SubQuestion
from llama_index.core.schema import MetadataMode
from llama_index.core.tools import QueryEngineTool

from finch_integrations import ContextTooLongError, FinchEngine, FinchError, PassageStore
from finch_integrations.llama_index import FinchLLM
from tests.busy import busy_until
from tests.llama_index.conftest import say, tiny_engine
from tests.tiny import make_tokenizer, text_of

Q = "Where is it?"
SYSTEM = TEXT_QA_SYSTEM_PROMPT.content
QA = {
    "system": f"{SYSTEM}\n\nContext information is below.",
    "instruction": "Given the context information and not prior knowledge, answer the query."
    "\nQuery:",
    "closing": "Answer:",
}
ONE_CALL = ["compact", "tree_summarize", "simple_summarize", "compact_accumulate"]
CALL_PER_NODE = ["refine", "accumulate"]


def make_engine(retriever, llm, **options):
    return RetrieverQueryEngine.from_args(retriever, llm=llm, **options)


async def ask(engine, how):
    """The answer of a query engine in one of the four ways to get it."""
    response = await engine.aquery(Q) if how.startswith("async") else engine.query(Q)
    if isinstance(response, StreamingResponse):
        return "".join(response.response_gen)
    if isinstance(response, AsyncStreamingResponse):
        return "".join([piece async for piece in response.response_gen])
    assert isinstance(response, Response)
    return response.response


WAYS = ["sync", "async", "sync stream", "async stream"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("mode", ONE_CALL)
async def test_the_full_set_reaches_the_model_in_one_call(llm, retriever, finch, mode, how):
    streaming = "stream" in how and "accumulate" not in mode  # accumulating cannot stream
    engine = make_engine(retriever, llm, response_mode=mode, streaming=streaming)
    assert await ask(engine, how)
    (statistics,) = finch()
    assert statistics["documents_from"] == "template"
    assert statistics["documents"] == 1
    assert statistics["document_tokens"] > 3 * 150
    assert statistics["kept_tokens"] == 60


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("mode", CALL_PER_NODE)
async def test_modes_that_call_per_node_compress_every_node(llm, retriever, finch, mode, how):
    streaming = "stream" in how and mode == "refine"
    engine = make_engine(retriever, llm, response_mode=mode, streaming=streaming)
    assert await ask(engine, how)
    assert len(finch()) == 3
    for statistics in finch():
        assert statistics["documents_from"] == "template"
        assert 150 <= statistics["document_tokens"] < 200


@pytest.mark.parametrize("how", WAYS)
async def test_compact_answers_like_the_engine(llm, retriever, answer, context, how):
    engine = make_engine(retriever, llm, streaming="stream" in how)
    assert await ask(engine, how) == answer([context], Q, **QA)


def test_refine_keeps_the_existing_answer(llm, retriever, answer, calls):
    make_engine(retriever, llm, response_mode="refine").query(Q)
    existing = calls[0].response.message.content
    node = retriever.retrieve(Q)[1].node.get_content(MetadataMode.LLM)
    intro = CHAT_REFINE_PROMPT.message_templates[0].content.split(" {context_msg}")[0]
    closing = f"Original Answer: {existing}\nNew Answer:"
    expected = answer([node], Q, system=intro, instruction="Query:", closing=closing)
    assert calls[1].response.message.content == expected


def test_simple_summarize_is_not_shown_a_list(llm, retriever, answer):
    nodes = retriever.retrieve(Q)
    context = "\n".join(node.node.get_content(MetadataMode.LLM) for node in nodes)
    engine = make_engine(retriever, llm, response_mode="simple_summarize")
    assert engine.query(Q).response == answer([context], Q, **QA)


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_multimodal_synthesis(llm, retriever, finch, how):
    engine = RetrieverQueryEngine(
        retriever, get_response_synthesizer(llm=llm, response_mode="compact", multimodal=True)
    )
    assert await ask(engine, how)
    (statistics,) = finch()
    assert statistics["documents_from"] == "template"
    assert statistics["document_tokens"] > 3 * 150


# Templates

INTRO = "Answer from this."
TEMPLATES = {
    "text": PromptTemplate(INTRO + "\n{context_str}\nQuestion: {query_str}\nAnswer:"),
    "query first": PromptTemplate(INTRO + "\nQuestion: {query_str}\n{context_str}"),
    "jinja": RichPromptTemplate(
        INTRO + "\n{{ context_str }}\nQuestion: {{ query_str }}\nYour answer:"
    ),
    "jinja chat": RichPromptTemplate(
        '{% chat role="system" %}' + INTRO + "{% endchat %}\n"
        '{% chat role="user" %}{{ context_str }}\nQuestion: {{ query_str }}{% endchat %}'
    ),
    "chat": ChatPromptTemplate(
        [say(INTRO + "\n```\n{context_str}\n```", "system"), say("Question: {query_str}")]
    ),
    "other names": PromptTemplate(
        INTRO + "\n{sources}\nQuestion: {question}",
        template_var_mappings={"context_str": "sources", "query_str": "question"},
    ),
    "shown twice": PromptTemplate(INTRO + "\n{context_str}\n{context_str}\nQuestion: {query_str}"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_of_all_kinds_say_where_the_context_is(llm, retriever, answer, context, name):
    engine = make_engine(retriever, llm, text_qa_template=TEMPLATES[name])
    closing = {"text": "Answer:", "jinja": "Your answer:"}.get(name, "")
    expected = answer([context], Q, system=INTRO, instruction="Question:", closing=closing)
    assert engine.query(Q).response == expected


def test_a_function_may_change_the_context(llm, retriever, answer, context):
    template = PromptTemplate(
        INTRO + "\n{context_str}\nQuestion: {query_str}",
        function_mappings={"context_str": lambda **kwargs: kwargs["context_str"].upper()},
    )
    engine = make_engine(retriever, llm, text_qa_template=template)
    expected = answer([context.upper()], Q, system=INTRO, instruction="Question:")
    # LlamaIndex has words of its own for an answer without any.
    assert engine.query(Q).response == (expected or "Empty Response")


def test_documents_may_hold_braces_rules_and_labels(llm, answer):
    text = "{query_str} {context_str}\n---------------------\nQuery: no {{ x }}\nAnswer: no"
    response = get_response_synthesizer(llm=llm).get_response(Q, [text])
    assert response == answer([text], Q, **QA)


@pytest.mark.parametrize(
    "template",
    ["Here is a section:\n{context_str}\n\nSummarize it.\nSummary: ", "Summarize:\n{context_str}"],
)
def test_a_text_that_nothing_is_asked_about_is_read_as_a_whole(llm, finch, template):
    prompt, text = PromptTemplate(template), text_of(150)
    expected = llm.complete(prompt.format(context_str=text), context_detection="off").text
    assert llm.predict(prompt, context_str=text) == expected
    assert {statistics["documents_from"] for statistics in finch()} == {"none"}


def test_an_empty_context_leaves_the_prompt_as_it_is(llm, calls):
    template = PromptTemplate("Context: {context_str}\nQuery: {query_str}")
    expected = llm.complete(f"Context: \nQuery: {Q}").text
    assert llm.predict(template, context_str="", query_str=Q) == expected


def test_prompts_without_a_context_are_not_touched(llm, finch):
    expected = llm.complete(f"Rewrite: {Q}").text
    assert llm.predict(PromptTemplate("Rewrite: {query_str}"), query_str=Q) == expected
    assert {statistics["documents_from"] for statistics in finch()} == {"none"}


def test_formatted_prompts_are_recognised_by_their_words(llm, answer, finch):
    text = text_of(150)
    expected = answer([text], Q, **QA)
    messages = CHAT_TEXT_QA_PROMPT.format_messages(context_str=text, query_str=Q)
    assert llm.chat(messages).message.content == expected
    assert finch()[0]["documents_from"] == "pattern"


# Chat engines

HISTORY = [say("Hello."), say("Hi.", "assistant")]
TURNS = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}]
ASSIST = "Use the context information below to assist the user."


def remember(messages):
    """A memory without a database, whose connection would outlive the test."""
    return ChatMemoryBuffer.from_defaults(chat_history=list(messages), token_limit=100_000)


async def chat(engine, how):
    if how == "sync":
        return engine.chat(Q).response
    if how == "async":
        return (await engine.achat(Q)).response
    if how == "sync stream":
        return "".join(engine.stream_chat(Q).response_gen)
    response = await engine.astream_chat(Q)
    return "".join([piece async for piece in response.async_response_gen()])


@pytest.mark.parametrize("how", WAYS)
async def test_context_chat_engine(llm, retriever, answer, context, how):
    engine = ContextChatEngine.from_defaults(
        retriever, llm=llm, memory=remember(HISTORY), system_prompt="Be brief."
    )
    expected = answer(
        [context], Q, system=f"{ASSIST}\n\nBe brief.", history=TURNS, instruction="Question:"
    )
    assert await chat(engine, how) == expected


@pytest.mark.parametrize("how", WAYS)
async def test_condense_plus_context_chat_engine(llm, retriever, finch, how):
    engine = CondensePlusContextChatEngine.from_defaults(
        retriever, llm=llm, memory=remember(HISTORY)
    )
    assert await chat(engine, how)
    condensed, answered = finch()
    assert condensed["documents_from"] == "none"
    assert answered["documents_from"] == "template"
    assert answered["kept_tokens"] == 60


@pytest.mark.parametrize("kind", [ContextChatEngine, CondensePlusContextChatEngine])
def test_a_chats_second_turn_reads_nothing_that_the_first_has_read(llm, retriever, finch, kind):
    engine = kind.from_defaults(retriever, llm=llm, memory=remember([]))
    for question in (Q, "And whose is it?"):
        engine.chat(question)
    first, second = (turn for turn in finch() if turn["documents_from"] == "template")
    assert first["read_tokens"] > 0
    assert second["read_tokens"] < first["read_tokens"]
    assert second["rated_tokens"] == first["rated_tokens"]


async def test_condense_question_chat_engine(llm, retriever, finch):
    engine = CondenseQuestionChatEngine.from_defaults(
        make_engine(retriever, llm), llm=llm, memory=remember(HISTORY)
    )
    engine.chat(Q)
    assert [s["documents_from"] for s in finch()] == ["none", "template"]


@pytest.mark.parametrize("how", WAYS)
async def test_simple_chat_engine(llm, how):
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=remember(HISTORY))
    assert await chat(engine, how) == llm.chat([*HISTORY, say(Q)]).message.content


def test_a_history_beyond_the_models_window_loses_its_oldest_turns(llm, retriever, finch):
    old = [say(text_of(3000)), say(text_of(3000), "assistant")]
    engine = ContextChatEngine.from_defaults(retriever, llm=llm, memory=remember([*old, *HISTORY]))
    without = ContextChatEngine.from_defaults(retriever, llm=llm, memory=remember(HISTORY))
    assert str(engine.chat(Q)) == str(without.chat(Q))
    assert [statistics.get("trimmed_messages") for statistics in finch()] == [2, None]
    with pytest.raises(ContextTooLongError, match="window"):
        engine.chat(text_of(6000))


# Further engines


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_citation_query_engine(llm, retriever, answer, how):
    engine = CitationQueryEngine.from_args(None, llm=llm, retriever=retriever)
    nodes = engine._create_citation_nodes(retriever.retrieve(Q))
    context = "\n\n".join(n.node.get_content(MetadataMode.LLM).strip() for n in nodes)
    system = CITATION_QA_TEMPLATE.template.split("\n------\n")[0]
    assert "Source 3:" in context
    assert await ask(engine, how) == answer(
        [context], Q, system=system, instruction="Query:", closing="Answer:"
    )


async def test_sub_questions_over_the_same_documents_read_them_once(model, index, calls):
    questions = [f"Where is number {number}?" for number in range(4)]

    class Fixed(BaseQuestionGenerator):
        def generate(self, tools, query):
            return [SubQuestion(sub_question=q, tool_name="all") for q in questions]

        async def agenerate(self, tools, query):
            return self.generate(tools, query)

        def _get_prompts(self):
            return {}

        def _update_prompts(self, prompts):
            pass

    engine = FinchEngine(model, make_tokenizer(), store=PassageStore(memory_bytes=0))
    llm = FinchLLM(engine=engine, max_tokens=8, target_size=60, compression={"read_size": "all"})
    tool = QueryEngineTool.from_defaults(
        index.as_query_engine(llm=llm, similarity_top_k=3), name="all", description="All."
    )
    sub_questions = SubQuestionQueryEngine(
        question_gen=Fixed(),
        response_synthesizer=get_response_synthesizer(llm=llm),
        query_engine_tools=[tool],
        use_async=True,
        verbose=False,
    )
    with busy_until(model, waiting=len(questions)):
        await sub_questions.aquery(Q)
    *found, last = [call.response.raw["finch"] for call in calls]
    assert len(found) == len(questions)
    read = sorted(one["read_tokens"] for one in found)
    assert read[:3] == [0, 0, 0]
    assert read[3] == found[0]["document_tokens"] > 450
    assert last["document_tokens"] != read[3], "their answers are what the last one is about"


async def test_faithfulness_evaluator(llm, answer, finch):
    text, claim = text_of(150), "It is blue."
    evaluator = FaithfulnessEvaluator(llm=llm)
    result = await evaluator.aevaluate(query=Q, response=claim, contexts=[text])
    system = DEFAULT_EVAL_TEMPLATE.template.split("\nInformation: {query_str}")[0]
    expected = answer(
        [text],
        claim,
        system=f"{system}\n\nContext:",
        instruction="Information:",
        closing="Answer:",
    )
    assert result.feedback == expected
    assert finch()[0]["documents_from"] == "template"


def test_settings_llm(llm, retriever, finch):
    Settings.llm = llm
    try:
        RetrieverQueryEngine.from_args(retriever).query(Q)
    finally:
        Settings._llm = None
    assert finch()[0]["documents_from"] == "template"


# Structured answers


class Place(BaseModel):
    """A place."""

    name: str


@pytest.fixture
def obedient(model):
    """Makes the model say a text, whatever it is asked."""
    state = {"fed": 0, "step": 0}
    ids = make_tokenizer()('{"name": "x"}<|im_end|>').input_ids

    def note(_, args, kwargs):
        state["fed"] = kwargs["input_ids"].shape[1]

    def force(_, args, logits):
        state["step"] = state["step"] + 1 if state["fed"] == 1 else 0
        logits = torch.zeros_like(logits)
        logits[..., ids[min(state["step"], len(ids) - 1)]] = 1
        return logits

    model.register_forward_pre_hook(note, with_kwargs=True)
    model.lm_head.register_forward_hook(force)


STRUCTURED = {
    "compact": {"response_mode": "compact"},
    "refine": {"response_mode": "refine"},
    "tree_summarize": {"response_mode": "tree_summarize"},
}


@pytest.fixture
def patient(engine):
    return FinchLLM(engine=engine, max_tokens=30, target_size=60)


@pytest.mark.usefixtures("obedient")
@pytest.mark.parametrize("mode", STRUCTURED)
@pytest.mark.parametrize("how", ["sync", "async"])
async def test_output_classes(patient, retriever, finch, mode, how):
    engine = make_engine(retriever, patient, output_cls=Place, **STRUCTURED[mode])
    response = await engine.aquery(Q) if how == "async" else engine.query(Q)
    assert str(response) == '{"name":"x"}'
    assert {s["documents_from"] for s in finch()} == {"template"}
    assert {s["kept_tokens"] for s in finch()} == {60}


@pytest.mark.usefixtures("obedient")
@pytest.mark.parametrize("how", ["sync", "async"])
async def test_structured_llms(patient, retriever, finch, how):
    engine = make_engine(retriever, patient.as_structured_llm(Place))
    response = await engine.aquery(Q) if how == "async" else engine.query(Q)
    assert response.response == Place(name="x")
    assert [statistics["documents_from"] for statistics in finch()] == ["template"]


@pytest.mark.usefixtures("obedient")
async def test_structured_predict(patient, finch):
    template = TEMPLATES["text"]
    values = {"context_str": text_of(150), "query_str": Q}
    assert patient.structured_predict(Place, template, **values) == Place(name="x")
    assert await patient.astructured_predict(Place, template, **values) == Place(name="x")
    streamed = list(patient.stream_structured_predict(Place, template, **values))
    assert streamed[-1].name == "x"
    stream = await patient.astream_structured_predict(Place, template, **values)
    assert [part async for part in stream][-1].name == "x"
    assert [s["documents_from"] for s in finch()] == ["template"] * 4
    short = patient.structured_predict(Place, template, {"max_tokens": 29}, **values)
    assert short == Place(name="x")


async def test_an_answer_that_breaks_the_schema_is_an_error_not_an_empty_response(llm, retriever):
    engine = make_engine(retriever, llm, output_cls=Place)
    with pytest.raises(FinchError, match="does not follow the output class's schema"):
        engine.query(Q)
    with pytest.raises(FinchError, match="does not follow the output class's schema"):
        await engine.aquery(Q)


# Errors


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("mode", ONE_CALL + CALL_PER_NODE)
async def test_errors_reach_the_user(retriever, mode, how):
    """Also those that LlamaIndex would take for an empty answer."""
    engine = tiny_engine(max_position_embeddings=4096)

    def fail(*_):
        raise ValueError("out of luck")

    engine.backbone.model.register_forward_pre_hook(fail)
    streaming = "stream" in how and "accumulate" not in mode
    query_engine = make_engine(
        retriever, FinchLLM(engine=engine), response_mode=mode, streaming=streaming
    )
    with pytest.raises(FinchError, match="the model failed: ValueError: out of luck"):
        await ask(query_engine, how)


@pytest.mark.parametrize("mode", ONE_CALL)
def test_a_set_beyond_llama_indexs_default_window_is_one_call(llm, finch, mode):
    texts = [text_of(4000, seed=n) for n in range(3)]
    get_response_synthesizer(llm=llm, response_mode=mode).get_response(Q, texts)
    (statistics,) = finch()
    assert statistics["document_tokens"] >= 12_000
    assert statistics["kept_tokens"] == 60


def test_context_window_is_what_llama_index_puts_into_one_prompt(engine, retriever, finch):
    llm = FinchLLM(engine=engine, max_tokens=8, target_size=60, context_window=200)
    make_engine(retriever, llm, response_mode="compact_accumulate").query(Q)
    assert len(finch()) > 1
