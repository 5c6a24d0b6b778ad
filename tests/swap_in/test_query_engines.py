"""LlamaIndex's engines with only the model replaced: what they ask, against what another LLM gets.

Three checks for every call of every engine, with evidence and without: what is no document is in
the model's prompt verbatim; every node is in the compressed set once; the question is the user's.
"""

import re
from collections import Counter

import pytest
from llama_index.core import (
    DocumentSummaryIndex,
    MockEmbedding,
    SimpleKeywordTableIndex,
    SummaryIndex,
    TreeIndex,
    VectorStoreIndex,
)
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
)
from llama_index.core.indices.document_summary import DocumentSummaryIndexLLMRetriever
from llama_index.core.indices.query.query_transform import (
    HyDEQueryTransform,
)
from llama_index.core.llms import CustomLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.query_engine import (
    CitationQueryEngine,
    RetrieverQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
    TransformQueryEngine,
)
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.retrievers import QueryFusionRetriever, RouterRetriever
from llama_index.core.schema import Document
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import QueryEngineTool, RetrieverTool
from pydantic import PrivateAttr

from tests.swap_in.engines import TEXTS, Q, RecorderLLM, nodes
from tests.swap_in.test_prompts import read_by_the_model, texts_of, words

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning"),
]
SECOND = "And on Mondays, does the boat leave?"
SUB = "At which hour does the boat leave?"
CHOICE = '[{"choice": 1, "reason": "It is about boats."}]'
SUBS = f'```json\n{{"items": [{{"sub_question": "{SUB}", "tool_name": "handbook"}}]}}\n```'


class OtherLLM(CustomLLM):
    """Another maker's chat model: it keeps its prompts, and says what it is told."""

    _asked: list = PrivateAttr(default_factory=list)
    _says: list = PrivateAttr(default_factory=list)

    @property
    def metadata(self):
        return LLMMetadata(is_chat_model=True, context_window=1_000_000, num_output=256)

    def will_say(self, *texts):
        self._says[:] = texts
        return self

    def chat(self, messages, **kwargs):
        self._asked.append("\n".join(message.content or "" for message in messages))
        text = self._says.pop(0) if self._says else "Fine."
        return ChatResponse(message=ChatMessage(role="assistant", content=text), delta=text)

    def stream_chat(self, messages, **kwargs):
        yield self.chat(messages, **kwargs)

    def complete(self, prompt, formatted=False, **kwargs):
        return CompletionResponse(text=self.chat([ChatMessage(content=prompt)]).message.content)

    def stream_complete(self, prompt, formatted=False, **kwargs):
        yield self.complete(prompt, formatted, **kwargs)


@pytest.fixture(autouse=True)
def _thread_loop(thread_loop):
    """Every test here may run LlamaIndex's coroutines."""


@pytest.fixture(params=["with evidence", "without evidence"])
def evidence(request):
    if request.param == "without evidence":
        request.getfixturevalue("without_evidence")
    return request.param


def vectors():
    return VectorStoreIndex(nodes(), embed_model=MockEmbedding(embed_dim=8))


def retriever():
    return vectors().as_retriever(similarity_top_k=3)


def tool(llm):
    engine = vectors().as_query_engine(llm=llm, similarity_top_k=3)
    return QueryEngineTool.from_defaults(engine, name="handbook", description="Knows boats.")


def chats(mode):
    def make(llm):
        memory = ChatMemoryBuffer.from_defaults(token_limit=100_000)
        engine = vectors().as_chat_engine(
            chat_mode=mode, llm=llm, similarity_top_k=3, memory=memory
        )
        return lambda: [engine.chat(question) for question in (Q, SECOND)]

    return make


def queries(make):
    return lambda llm: lambda: make(llm).query(Q)


def with_mode(mode):
    return queries(lambda llm: SummaryIndex(nodes()).as_query_engine(llm=llm, response_mode=mode))


def summaries(llm):
    texts = [Document(text=node.text, id_=node.node_id) for node in nodes()]
    index = DocumentSummaryIndex.from_documents(
        texts, llm=OtherLLM(), embed_model=MockEmbedding(embed_dim=8)
    )
    found = DocumentSummaryIndexLLMRetriever(index, llm=llm, choice_top_k=1)
    return RetrieverQueryEngine.from_args(found, llm=llm)


WITHOUT_DOCUMENTS = {ResponseMode.GENERATION, ResponseMode.NO_TEXT, ResponseMode.CONTEXT_ONLY}
MODES = [mode.value for mode in ResponseMode if mode not in WITHOUT_DOCUMENTS]
# Name: (makes a run of an engine with a model, what its model says, the questions of its answers)
ENGINES = {
    **{f"mode {mode}": (with_mode(mode), [], {Q}) for mode in MODES},
    **{
        f"chat {mode}": (chats(mode), says, {Q, SECOND})
        for mode, says in {
            "context": [],
            "condense_plus_context": ["Fine.", SECOND],
            "condense_question": ["Fine.", SECOND],
        }.items()
    },
    "citations": (
        queries(lambda llm: CitationQueryEngine.from_args(vectors(), llm=llm, similarity_top_k=3)),
        [],
        {Q},
    ),
    "router": (
        queries(
            lambda llm: RouterQueryEngine.from_defaults(
                [tool(llm)], llm=llm, selector=LLMSingleSelector.from_defaults(llm=llm)
            )
        ),
        [CHOICE],
        {Q},
    ),
    "router of retrievers": (
        queries(
            lambda llm: RetrieverQueryEngine.from_args(
                RouterRetriever.from_defaults(
                    llm=llm,
                    retriever_tools=[
                        RetrieverTool.from_defaults(retriever(), description="Knows boats.")
                    ],
                    selector=LLMSingleSelector.from_defaults(llm=llm),
                ),
                llm=llm,
            )
        ),
        [CHOICE],
        {Q},
    ),
    "sub-questions": (
        queries(
            lambda llm: SubQuestionQueryEngine.from_defaults(
                [tool(llm)],
                llm=llm,
                question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
                use_async=False,
                verbose=False,
            )
        ),
        [SUBS],
        {SUB, Q},
    ),
    "fusion": (
        queries(
            lambda llm: RetrieverQueryEngine.from_args(
                QueryFusionRetriever(
                    [retriever()], llm=llm, num_queries=2, similarity_top_k=3, use_async=False
                ),
                llm=llm,
            )
        ),
        ["When does a boat go?"],
        {Q},
    ),
    "reranked": (
        queries(
            lambda llm: vectors().as_query_engine(
                llm=llm, similarity_top_k=3, node_postprocessors=[LLMRerank(llm=llm, top_n=3)]
            )
        ),
        ["Doc: 1, Relevance: 9\nDoc: 2, Relevance: 8\nDoc: 3, Relevance: 7"],
        {Q},
    ),
    "hyde": (
        queries(
            lambda llm: TransformQueryEngine(
                vectors().as_query_engine(llm=llm, similarity_top_k=3), HyDEQueryTransform(llm=llm)
            )
        ),
        ["At nine."],
        {Q},
    ),
    "tree": (
        queries(
            lambda llm: TreeIndex(nodes(), llm=OtherLLM(), num_children=3).as_query_engine(
                llm=llm, retriever_mode="all_leaf"
            )
        ),
        [],
        {Q},
    ),
    "keywords": (
        queries(
            lambda llm: SimpleKeywordTableIndex(nodes(), llm=OtherLLM()).as_query_engine(llm=llm)
        ),
        [],
        {Q},
    ),
    "summaries": (queries(summaries), ["Doc: 1, Relevance: 9"], {Q}),
}


# What names or separates the nodes goes with them; `simple_summarize` shows a list of Python.
HEADER = re.compile(r"(?:[\[',\s]|\\n)*file: \d\.md(?:\\n)*|(?:Source|Document) \d+:")


def lines_of(prompt, documents):
    """The lines of a prompt with its documents and questions taken out."""
    for text in documents:
        prompt = prompt.replace(text.strip(), "\n")
    return [line.strip() for line in HEADER.sub("\n", prompt).splitlines() if words(line)]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_only_the_nodes_are_compressed(name, strict, evidence):
    make, says, questions = ENGINES[name]
    other, llm = OtherLLM().will_say(*says), RecorderLLM(strict=strict).will_say(*says)
    make(other)()
    make(llm)()
    assert len(other._asked) == len(llm.calls)
    compressed: Counter[int] = Counter()
    answers = 0
    for prompt, call in zip(other._asked, llm.calls, strict=True):
        read, got = read_by_the_model(call.request), texts_of(call)
        shown = [text for text in TEXTS if text.strip() in prompt]
        if call.source == "none":
            assert all(line in read for line in lines_of(prompt, []))
            continue
        answers += 1
        # Answers to sub-questions are nodes, too.
        others = [text for text in got if not any(one.strip() in text for one in TEXTS)]
        for line in lines_of(prompt, [*TEXTS, *questions]):
            assert any(line in text for text in (read, *others)), f"{line!r} is lost"
        for text in shown:
            assert sum(one.count(text.strip()) for one in got) == prompt.count(text.strip()) == 1
            assert text.strip() not in read
        assert call.request.messages[-1]["content"] in questions
        compressed.update(TEXTS.index(text) for text in shown)
    assert answers
    if name.startswith("chat"):
        assert set(compressed.values()) == {2}
    elif name not in ("sub-questions", "summaries", "keywords"):
        assert compressed == {0: 1, 1: 1, 2: 1}
