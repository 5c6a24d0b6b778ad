"""FinchLLM(llm=…): what another LLM gets, and what comes back of it."""

import asyncio
import json

import pytest
from llama_index.core import PromptTemplate, SummaryIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, CitableBlock, ImageBlock, TextBlock
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import MockLLM
from llama_index.core.program.function_program import FunctionTool
from llama_index.core.prompts.default_prompts import DEFAULT_TEXT_QA_PROMPT
from llama_index.core.schema import TextNode
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from finch_integrations import ConfigurationError, ContextTooLongError
from finch_integrations.engine.prompt import INSTRUCTION
from finch_integrations.llama_index import FinchLLM, FinchSynthesizer
from tests.peer import Reply, serving
from tests.reference_passages import left_of

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

FILLER = "Nothing of that kind is said in here today. "
TEXTS = [
    FILLER * 4 + "The code of the store is {7316}.\n\n" + FILLER * 3 + "End.",
    FILLER * 8 + "End.",
    "Ask for the store code at the gate. " + FILLER + "End.",
]
NODES = [TextNode(text=text, id_=name) for name, text in zip("abc", TEXTS, strict=True)]
QUESTION = "What is the code of the store?"
BUDGET = {"target_size": 200}
SAID = "The code of the store is {7316}."


def reply(text=SAID, **message):
    """A whole answer, and the same as a stream."""
    whole = {"role": "assistant", "content": text, **message}
    choice = {"index": 0, "message": whole, "finish_reason": "stop"}
    kind = {"id": "1", "model": "m", "object": "chat.completion", "created": 1}
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    return Reply(content={**kind, "choices": [choice], "usage": usage})


def inner(peer, **options):
    options = {"context_window": 4000, "max_tokens": 50, **options}
    return OpenAILike(
        api_base=peer.url,
        model="m",
        api_key="sk-secret",
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
        **options,
    )


@pytest.fixture
def peer():
    with serving(reply()) as found:
        yield found


@pytest.fixture
def wrapped(peer, engine):
    return FinchLLM(llm=inner(peer), scorer=engine, **BUDGET)


def kept(engine, texts=TEXTS, question=QUESTION):
    return left_of(engine, texts, question, **BUDGET)


def sent(peer, number=0):
    return peer.requests[number]["body"]["messages"]


@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize"])
def test_a_query_engine_asks_once_and_only_the_context_changes(wrapped, peer, engine, mode):
    nodes = [TextNode(text="\n\n".join(TEXTS))]
    query_engine = SummaryIndex(nodes=nodes).as_query_engine(llm=wrapped, response_mode=mode)
    assert str(query_engine.query(QUESTION)) == SAID
    assert len(peer.requests) == 1
    (left,) = kept(engine, ["\n\n".join(TEXTS)])
    written = [message["content"] for message in sent(peer)]
    plain = ["\n\n".join(TEXTS)]
    assert sum(left in text for text in written) == 1
    assert not any(plain[0] in text for text in written)
    peer.requests.clear()
    SummaryIndex(nodes=nodes).as_query_engine(llm=inner(peer), response_mode=mode).query(QUESTION)
    unchanged = [message["content"].replace(plain[0], left) for message in sent(peer)]
    assert written == unchanged


def test_a_set_beyond_the_inner_window_is_still_one_call(peer, engine):
    nodes = [TextNode(text=f"{number} {FILLER * 40}") for number in range(20)]
    llm = FinchLLM(llm=inner(peer, context_window=2000), scorer=engine, target_size=300)
    SummaryIndex(nodes=nodes).as_query_engine(llm=llm).query(QUESTION)
    assert len(peer.requests) == 1
    assert llm.metadata.context_window == 1_000_000
    assert llm.metadata.is_function_calling_model


def test_what_does_not_fit_the_inner_window_after_choosing_is_refused(peer, engine):
    llm = FinchLLM(llm=inner(peer, context_window=300), scorer=engine, target_size=290)
    with pytest.raises(ContextTooLongError, match="window of 300"):
        llm.chat([ChatMessage(content=QUESTION)], documents=NODES)
    answer = FinchLLM(llm=inner(peer, context_window=900), scorer=engine).chat(
        [ChatMessage(content=QUESTION)], documents=NODES
    )
    assert answer.additional_kwargs["finch"]["kept_tokens"] <= 450  # half of the window


@pytest.mark.parametrize("documents", [None, NODES])
def test_a_history_that_outgrows_the_inner_window_loses_its_oldest_turns(
    peer, engine, caplog, documents
):
    llm = FinchLLM(llm=inner(peer, context_window=700, max_tokens=50), scorer=engine, **BUDGET)
    chat = [ChatMessage(role="system", content="Be kind.")]
    for n in range(100):
        chat.append(ChatMessage(role="user", content=f"Question {n:03}?"))
        chat.append(ChatMessage(role="assistant", content=f"It is answer {n:03}."))
    chat.append(ChatMessage(role="user", content=QUESTION))
    options = {} if documents is None else {"documents": documents}
    for _ in range(2):
        trimmed = llm.chat(chat, **options).additional_kwargs["finch"]["trimmed_messages"]
        written = [message["content"] for message in sent(peer, -1)]
        kept = [chat[0], *chat[1 + trimmed :]]
        assert written[:-1] == [message.content for message in kept[:-1]]
        assert written[-1].endswith(QUESTION)
        assert 100 < trimmed < 200
    assert sum("oldest messages of a chat were left out" in r.message for r in caplog.records) == 1
    short = llm.chat(chat[:5] + chat[-1:], **options)
    assert "trimmed_messages" not in short.additional_kwargs["finch"]


def test_a_long_prompt_without_documents_is_reported_once(wrapped, caplog):
    for question in (QUESTION, "Where?"):
        wrapped.complete("Summarise what follows: " + FILLER * 40 + question)
    (record,) = caplog.records
    for way in ("format_docs", "documents=", "context_patterns", "evidence", "target_size is 200"):
        assert way in record.message
    with pytest.raises(ContextTooLongError, match="context_patterns"):
        wrapped.complete("Summarise what follows: " + FILLER * 400)


def test_documents_of_the_call_come_before_the_question(wrapped, peer, engine):
    messages = [ChatMessage(role="system", content="Brief."), ChatMessage(content=QUESTION)]
    wrapped.chat(messages, documents=NODES)
    documents = [
        f'<document id="{name}">\n{text}\n</document>'
        for name, text in zip("abc", kept(engine), strict=True)
        if text
    ]
    written = "\n".join(["<documents>", *documents, "</documents>"])
    assert sent(peer) == [
        {"role": "system", "content": "Brief."},
        {"role": "user", "content": f"{written}\n\n{INSTRUCTION} {QUESTION}"},
    ]


def test_citable_blocks_become_text_in_their_place_and_images_stay(wrapped, peer, engine):
    blocks = [
        CitableBlock(title="", source=name, content=[TextBlock(text=text)])
        for name, text in zip("abc", TEXTS, strict=True)
    ]
    image = ImageBlock(url="https://host/a.png")
    wrapped.chat([ChatMessage(blocks=[*blocks, image, TextBlock(text=QUESTION)])])
    *texts, shown, question = sent(peer)[0]["content"]
    assert [block["text"] for block in texts] == [
        f'<document id="{name}">\n{text}\n</document>'
        for name, text in zip("abc", kept(engine), strict=True)
        if text
    ]
    assert shown["type"] == "image_url"
    assert question["text"] == QUESTION


def test_the_answer_is_the_inner_models_with_citations_and_costs(wrapped, engine):
    messages = [ChatMessage(content=QUESTION)]

    async def later():
        answer = await wrapped.achat(messages, documents=NODES)
        prompt = await wrapped.acomplete(QUESTION, documents=NODES)
        return answer, prompt

    stats = engine.select(TEXTS, QUESTION, **BUDGET).stats
    for answer in (
        wrapped.chat(messages, documents=NODES),
        wrapped.complete(QUESTION, documents=NODES),
        *asyncio.run(later()),
    ):
        facts = answer.additional_kwargs
        assert answer.raw is not None
        assert facts["finch"]["kept_tokens"] == stats.kept_tokens
        (citation,) = facts["citations"]
        assert citation["document_id"] == "a"
        node = NODES[0].text
        assert node[citation["source_start"] : citation["source_end"]] == citation["text"]


def test_streams_pass_on_and_end_with_citations_and_costs(engine):
    with serving(Reply(pieces=("The code of the store ", "is {7316}."))) as peer:
        wrapped = FinchLLM(llm=inner(peer), scorer=engine, **BUDGET)

        async def collect():
            answers = await wrapped.astream_chat([ChatMessage(content=QUESTION)], documents=NODES)
            return [answer async for answer in answers]

        for answers in (
            list(wrapped.stream_chat([ChatMessage(content=QUESTION)], documents=NODES)),
            asyncio.run(collect()),
        ):
            assert "".join(answer.delta or "" for answer in answers) == SAID
            assert "finch" not in answers[0].additional_kwargs
            assert answers[-1].message.content == SAID
            assert answers[-1].additional_kwargs["citations"][0]["document_id"] == "a"


def test_a_synthesizer_has_the_costs(wrapped):
    synthesizer = FinchSynthesizer(llm=wrapped)
    nodes = SummaryIndex(nodes=NODES).as_retriever().retrieve(QUESTION)
    response = synthesizer.synthesize(QUESTION, nodes)
    assert response.response == SAID
    assert response.metadata["finch"]["documents"] == 3
    assert len(response.source_nodes) == 3


def test_options_of_a_call_go_where_they_belong_and_no_marks_leave(wrapped, peer):
    query_engine = SummaryIndex(nodes=NODES).as_query_engine(llm=wrapped)
    query_engine.query(QUESTION)
    wrapped.chat([ChatMessage(content=QUESTION)], documents=NODES, target_size=50, seed=3)
    assert "finch" not in json.dumps([request["body"] for request in peer.requests])
    assert peer.requests[1]["body"]["seed"] == 3


def test_usage_is_counted_once(peer, engine):
    counter = TokenCountingHandler(tokenizer=str.split)
    llm = OpenAILike(
        api_base=peer.url,
        model="m",
        api_key="k",
        is_chat_model=True,
        callback_manager=CallbackManager([counter]),
    )
    FinchLLM(llm=llm, scorer=engine, **BUDGET).chat(
        [ChatMessage(content=QUESTION)], documents=NODES
    )
    assert len(counter.llm_token_counts) == 1


class Answer(BaseModel):
    """An answer."""

    code: int


def call_of(name, arguments):
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]}


def test_structured_output_is_the_inner_models_own(engine):
    with serving(reply(None, **call_of("Answer", '{"code": 7316}'))) as peer:
        wrapped = FinchLLM(llm=inner(peer), scorer=engine, **BUDGET)
        prompt = PromptTemplate(DEFAULT_TEXT_QA_PROMPT.get_template())
        context = "\n\n".join(TEXTS)
        arguments = {"context_str": context, "query_str": QUESTION}
        found = [
            wrapped.structured_predict(Answer, prompt, **arguments),
            asyncio.run(wrapped.astructured_predict(Answer, prompt, **arguments)),
            wrapped.as_structured_llm(Answer)
            .chat([ChatMessage(content=prompt.format(**arguments))])
            .raw,
        ]
        inner(peer).structured_predict(Answer, prompt, **arguments)
    assert found == [Answer(code=7316)] * 3
    *ours, theirs = (request["body"] for request in peer.requests)
    (left,) = kept(engine, [context])
    assert len(left) < len(context) / 2
    assert ours[0] == ours[1]
    expected = theirs["messages"][0]["content"].replace(context, left)
    for body in ours:
        assert body["messages"][0]["content"] == expected
        assert body["tools"] == theirs["tools"]


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
def test_a_function_agent_calls_tools_and_their_results_are_shortened(engine):
    def search(query: str) -> str:
        """Search."""
        return "\n".join(f"<document>{text}</document>" for text in TEXTS)

    streamed = Reply(pieces=(call_of("search", '{"query": "code"}'),), finish="tool_calls")
    with serving(streamed, Reply(pieces=(SAID,))) as peer:
        agent = FunctionAgent(
            llm=FinchLLM(llm=inner(peer), scorer=engine, **BUDGET),
            tools=[FunctionTool.from_defaults(search)],
        )

        async def run():
            return await agent.run(QUESTION)

        assert str(asyncio.run(run())) == SAID
    first, second = (request["body"] for request in peer.requests)
    assert first["tools"][0]["function"]["name"] == "search"
    result = second["messages"][-1]
    assert (result["role"], result["tool_call_id"]) == ("tool", "c1")
    left = [text for text in kept(engine) if text]
    assert result["content"] == "\n".join(f"<document>{text}</document>" for text in left)
    assert len(result["content"]) < sum(map(len, TEXTS)) / 2


def test_a_completion_model_gets_the_prompt_as_text(engine):
    llm = FinchLLM(llm=MockLLM(), scorer=engine, **BUDGET)
    prompt = DEFAULT_TEXT_QA_PROMPT.format(context_str="\n\n".join(TEXTS), query_str=QUESTION)
    answer = llm.complete(prompt)  # it repeats what it is asked
    (left,) = kept(engine, ["\n\n".join(TEXTS)])
    assert answer.text == prompt.replace("\n\n".join(TEXTS), left)
    with pytest.raises(ConfigurationError, match="MockLLM, cannot call tools"):
        llm.chat_with_tools([], user_msg="Hi")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"compression": {"method": "finch"}}, "prunes the cache"),
        ({"max_kv_bytes": 10**6}, "generated elsewhere"),
        ({"max_tokens": 5}, "max_tokens: with llm"),
        ({"engine": "embedded"}, "given once"),
        ({"token_ratio": 0}, "token_ratio"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_options_that_make_no_sense_around_a_model_are_refused_when_it_is_made(
    engine, options, reason
):
    with pytest.raises(ConfigurationError, match=reason):
        FinchLLM(llm=MockLLM(), scorer=engine, **options)


def test_it_is_a_finch_llm_and_shows_no_secrets(wrapped):
    assert isinstance(wrapped, FinchLLM)
    assert "sk-secret" not in repr(wrapped) + str(wrapped.model_dump())
