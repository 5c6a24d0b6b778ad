"""Chains whose prompts were written for other models: only the model is replaced."""

import re

import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnablePassthrough
from pydantic import PrivateAttr

from finch_integrations.langchain import ChatFinch
from tests.swap_in.installed import INSTALLED
from tests.swap_in.prompts import PROMPTS, STYLES, UNSEEN

Q = "When does the boat to the island leave?"
PARAGRAPH = "It is repeated in the yearly report of the harbour, which few people read. "
TEXTS = [
    "The boat to the island leaves at nine, except on Mondays.\n\nIt is blue. " + PARAGRAPH * 8,
    "Question: How many doors are there?\nAnswer: Two doors, both green. " + PARAGRAPH * 9,
    'The code of the store is 7316; "ask" Ann & Bob <in> the café. ' + PARAGRAPH * 10,
]
DOCUMENTS = [
    Document(text.strip(), id=f"d{n}", metadata={"source": f"{n}.md"})
    for n, text in enumerate(TEXTS)
]


ALL = [*PROMPTS, *UNSEEN, *INSTALLED, *STYLES]


class Fixed(BaseRetriever):
    """Finds the same documents every time."""

    found: list[Document] = DOCUMENTS

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun):
        return self.found


class Recorder(ChatFinch):
    """Keeps what would reach the engine, and answers at once."""

    _calls: list = PrivateAttr(default_factory=list)

    @property
    def calls(self):
        return self._calls

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        self._calls.append(self._prepare(messages, stop, kwargs))
        yield ChatGenerationChunk(message=AIMessageChunk("Fine.", chunk_position="last"))

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        for chunk in self._stream(messages, stop, run_manager, **kwargs):
            yield chunk


def plain(documents):
    return "\n\n".join(document.page_content for document in documents)


def chain_of(system, human, model, form=plain):
    messages = [("human", human)] if system is None else [("system", system), ("human", human)]
    prompt = ChatPromptTemplate.from_messages(messages)
    return {"context": Fixed() | form, "question": RunnablePassthrough()} | prompt | model


def words(text):
    return re.findall(r"\w+", text)


def pieces(*templates):
    """The lines of the templates that are not variables."""
    texts = [re.split(r"\{\w+\}", template or "") for template in templates]
    lines = [line.strip() for text in texts for piece in text for line in piece.splitlines()]
    lines = [line.replace("{{", "{").replace("}}", "}") for line in lines]
    return [line for line in lines if words(line)]


def texts_of(call):
    """The documents that are compressed."""
    return [document.text for document in call.request.documents]


def read_by_the_model(request):
    return "\n".join(
        [*(m["content"] for m in request.messages), request.instruction or "", request.closing]
    )


WRAPPER = re.compile(r"```\w*|<div[^>]*>|</?[\w_]+/?>|\[/?[A-Z]+\]|\[CONTEXT\]")


def check(name, system, human, call, *, documents=DOCUMENTS):
    request = call.request
    read = read_by_the_model(request)
    for line in pieces(system, human):
        wrapper = WRAPPER.fullmatch(line)
        assert wrapper or line in read, f"{name}: {line!r} is lost"
    got = [document.text for document in request.documents]
    for document in documents:
        assert sum(document.page_content in text for text in got) == 1, f"{name}: {got}"
        assert document.page_content not in read
    assert len(got) == len(documents)
    # A message of its own is the question as it is.
    question = Q if "{context}" in human else human.replace("{question}", Q)
    assert request.messages[-1] == {"role": "user", "content": question}, name
    assert [document.id for document in request.documents] == [d.id for d in documents]


@pytest.mark.parametrize("prompt", ALL, ids=lambda prompt: prompt[0])
def test_only_the_retrieved_documents_are_compressed(prompt):
    name, _, system, human = prompt
    model = Recorder()
    chain_of(system, human, model).invoke(Q)
    (call,) = model.calls
    check(name, system, human, call)
    assert call.source == "evidence"


@pytest.mark.parametrize("prompt", ALL, ids=lambda prompt: prompt[0])
def test_without_evidence_nothing_is_lost(prompt, without_evidence):
    name, _, system, human = prompt
    model = Recorder()
    chain_of(system, human, model).invoke(Q)
    (call,) = model.calls
    everything = read_by_the_model(call.request)
    everything += "\n".join(document.text for document in call.request.documents)
    for line in pieces(system, human):
        in_documents = any(line in document.text for document in call.request.documents)
        assert WRAPPER.fullmatch(line) or line in everything
        assert not in_documents or any(line in d.page_content for d in DOCUMENTS), name
    for document in DOCUMENTS:
        assert all(word in everything for word in words(document.page_content))
    assert call.source in ("none", "pattern", "mark")
    # What is missed is said, once the prompt is known to be longer than the budget.
    assert bool(call.request.advice) == (call.source == "none")


def test_the_prompts_are_others():
    assert len({prompt[2:] for prompt in ALL if prompt[1] not in ("own", "issue", "plain")}) >= 60
