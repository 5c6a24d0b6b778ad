"""Prompts, documents and chats that were made up to break the detection, after it was written."""

import json
import re

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import PydanticOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from pydantic import BaseModel

from tests.swap_in.test_prompts import (
    DOCUMENTS,
    PARAGRAPH,
    WRAPPER,
    Fixed,
    Q,
    Recorder,
    pieces,
    plain,
    read_by_the_model,
    texts_of,
    words,
)

RULES = (
    "Instructions for the clerk. "
    + "Always be polite, always cite, never reveal personal data, and give dates in ISO form. " * 25
)
PROMPTS = {
    "korean": (None, "문서:\n{context}\n\n질문: {question}\n답변은 한국어로 짧게."),
    "russian": ("Отвечай по-русски.", "Контекст:\n{context}\n\nВопрос: {question}\nОтвет:"),
    "turkish": (None, "Bağlamı kullan.\n\n{context}\n\nSoru: {question}\n\nKaynak gösterme."),
    "hebrew": ("ענה בעברית.", "הקשר:\n{context}\n\nשאלה: {question}"),
    "angles": (None, "<<<CONTEXT\n{context}\nCONTEXT>>>\n<<<ASK\n{question}\nASK>>>\nNow:"),
    "tildes": (None, "~~~~ docs ~~~~\n{context}\n~~~~ end ~~~~\n\n{question}\n\nLimit: 40 words."),
    "stars": (None, "****\n{context}\n****\nTask: answer `{question}` as a haiku."),
    "model tokens": (None, "[INST] <<SYS>>\nUse it.\n<</SYS>>\n\n{context}\n\n{question} [/INST]"),
    "long rules after": (None, "{context}\n\n" + RULES + "\n\nQuestion: {question}"),
    "long rules in system": ("Docs:\n{context}\n\n" + RULES, "{question}"),
    "long rules last": (None, "Question: {question}\n\nContext:\n{context}\n\n" + RULES),
    "bullets": (None, "Sources:\n- {context}\n\nA visitor asks: {question}\n\n- be brief"),
    "e-mail": (None, "> {context}\n\nOn Monday Ann wrote:\n{question}\n\n--\nBob, Station"),
    "latex": (None, "\\begin{{context}}\n{context}\n\\end{{context}}\n\\question{{{question}}}"),
    "sql": (None, "/* {context} */\n-- question: {question}\nSELECT answer;"),
    "toml": (None, 'context = """\n{context}\n"""\nquestion = "{question}"\nstyle = "short"'),
    "in a sentence": (None, 'Ann asks "{question}" - reply from:\n{context}\nSign as harbour.'),
    "nothing between": (None, "{context}{question}"),
    "footnotes": (None, "{context}\n\n[^1]: internal only, do not print\n\n{question}"),
    "shown twice": ("A:\n{context}", "B, the same again:\n{context}\n\n{question}"),
}
FAQ = [
    Document(f"Question: {Q}\nAnswer: At nine. " + PARAGRAPH * 4, id="f0"),
    Document("Q: May dogs come along?\nA: Yes, on a lead. " + PARAGRAPH * 4, id="f1"),
    Document("## Instructions\n\n1. Ring.\n\nUser: Hi\nAssistant: Hi\n\n" + PARAGRAPH * 4, id="f2"),
    Document(PARAGRAPH * 4 + f"\n{Q}", id="f3"),
]
FORMS = {
    "plain": plain,
    "numbered": lambda docs: "\n".join(
        f"[{n}] {one.page_content} (score 0.{n})" for n, one in enumerate(docs, start=1)
    ),
    "json": lambda docs: json.dumps([{"page_content": one.page_content} for one in docs]),
}
CASES = [
    pytest.param(name, docs, form, id=f"{name}, {docs[0].id}, {form}")
    for name in PROMPTS
    for docs in (DOCUMENTS, FAQ)
    for form in FORMS
]


def asked(name, documents, form):
    """What a chain's model gets."""
    system, human = PROMPTS[name]
    messages = [("human", human)] if system is None else [("system", system), ("human", human)]
    model = Recorder()
    context = {"context": Fixed(found=documents) | FORMS[form], "question": RunnablePassthrough()}
    (context | ChatPromptTemplate.from_messages(messages) | model).invoke(Q)
    return model.calls[0]


@pytest.mark.parametrize(("name", "documents", "form"), CASES)
def test_made_up_prompts_lose_nothing_but_their_documents(name, documents, form):
    call = asked(name, documents, form)
    read, got = read_by_the_model(call.request), texts_of(call)
    assert call.source == "evidence"
    for line in pieces(*PROMPTS[name]):
        assert line in read or WRAPPER.fullmatch(line), f"{line!r} is lost"
    assert len(got) == len(documents)
    for document in documents:
        assert sum(document.page_content.strip() in text for text in got) == 1
        assert document.page_content.strip() not in read
    assert Q in call.request.messages[-1]["content"]
    assert len(call.request.messages[-1]["content"]) < len(Q) + 60


@pytest.mark.parametrize(("name", "documents", "form"), CASES)
def test_made_up_prompts_lose_nothing_without_evidence(name, documents, form, without_evidence):
    call = asked(name, documents, form)
    everything = "\n".join([read_by_the_model(call.request), *texts_of(call)])
    for line in pieces(*PROMPTS[name]):
        assert line in everything or WRAPPER.fullmatch(line), f"{line!r} is lost"
        assert not any(line in text for text in texts_of(call))
    shown = FORMS[form](documents)
    assert all(word in everything for word in words(shown))


# Chats


def found(*messages, documents=DOCUMENTS, query=Q):
    """What the model of an agent gets whose retriever has found documents."""
    model = Recorder()

    def step(_):
        Fixed(found=documents).invoke(query)
        return model.invoke([*messages])

    RunnableLambda(step).invoke(None)
    return model.calls[0]


def call_of(number):
    call = {"name": "search", "args": {"query": Q}, "id": str(number), "type": "tool_call"}
    return AIMessage("", tool_calls=[call])


def test_the_rest_of_a_tool_s_json_stays():
    result = {
        "status": {"code": 200, "warning": "The index is from 2019."},
        "hits": [{"rank": n, "body": one.page_content} for n, one in enumerate(DOCUMENTS)],
        "next": "/search?page=2",
    }
    shown = json.dumps(result, indent=2, ensure_ascii=False)
    call = found(HumanMessage(Q), call_of(1), ToolMessage(shown, tool_call_id="1"))
    read = read_by_the_model(call.request)
    assert texts_of(call) == [one.page_content for one in DOCUMENTS]
    assert "The index is from 2019." in read
    assert "/search?page=2" in read
    assert call.request.messages[-1]["content"] == Q


def test_two_tools_of_which_one_retrieves():
    plan = "Plan: take the bus to the pier. " * 20
    call = found(
        SystemMessage("Be brief."),
        HumanMessage(Q),
        call_of(1),
        ToolMessage(plain(DOCUMENTS), tool_call_id="1"),
        call_of(2),
        ToolMessage(plan, tool_call_id="2"),
    )
    assert texts_of(call) == [one.page_content for one in DOCUMENTS]
    assert plan.strip() in read_by_the_model(call.request)
    assert call.request.messages[-1]["content"] == Q


def test_a_context_in_an_old_turn_and_another_one_now():
    first, *rest = DOCUMENTS
    call = found(
        HumanMessage(f"Context: {first.page_content}\n\nQuestion: Which colour has it?"),
        AIMessage("Blue. Never mind the colour, though."),
        HumanMessage(f"Context: {plain(rest)}\n\nQuestion: {Q}\nStay in one sentence."),
    )
    assert sorted(texts_of(call)) == sorted(one.page_content for one in DOCUMENTS)
    read = read_by_the_model(call.request)
    for said in ("Which colour has it?", "Never mind the colour", "Stay in one sentence."):
        assert said in read
    assert call.request.messages[-1]["content"] == Q


def test_examples_with_contexts_of_their_own_stay():
    example = f"Context: The sky is green on Tuesdays. {PARAGRAPH * 3}\nQuestion: Which colour?"
    call = found(
        HumanMessage(example),
        AIMessage("Green."),
        HumanMessage(f"Context: {plain(DOCUMENTS)}\nQuestion: {Q}"),
    )
    assert texts_of(call) == [one.page_content for one in DOCUMENTS]
    assert "The sky is green on Tuesdays." in read_by_the_model(call.request)
    assert call.request.messages[-1]["content"] == Q


class Reply(BaseModel):
    """What is wanted."""

    hour: int
    source: str


def test_format_instructions_after_the_context_stay():
    wanted = PydanticOutputParser(pydantic_object=Reply).get_format_instructions()
    call = found(HumanMessage(f"{plain(DOCUMENTS)}\n\n{wanted}\n\nQuestion: {Q}"))
    read = read_by_the_model(call.request)
    assert all(line.strip() in read for line in wanted.splitlines())
    assert texts_of(call) == [one.page_content for one in DOCUMENTS]


LONG = (
    "When does the boat to the island leave on a holiday that is also a Monday, if the ice is "
    "thick and the captain is on leave?"
)


def test_a_long_question_that_begins_a_document_stays_the_question():
    """The prompt's end reads like the document's start that is cut off."""
    faq = [*DOCUMENTS, Document(f"Question: {LONG}\nAnswer: Never. {PARAGRAPH}", id="faq")]
    call = found(
        HumanMessage(f"{plain(faq)}\n\nQuestion: {LONG}\nAnswer:"), documents=faq, query=LONG
    )
    assert [text.strip() for text in texts_of(call)] == [one.page_content.strip() for one in faq]
    assert call.request.messages[-1]["content"] == LONG


def test_a_question_over_several_lines_stays_whole():
    query = "When does the boat leave?\n\nI have two dogs with me,\nand a bicycle."
    call = found(HumanMessage(f"Notes:\n{plain(DOCUMENTS)}\n\n{query}"), query=query)
    assert call.request.messages[-1]["content"] == query
    assert texts_of(call) == [one.page_content for one in DOCUMENTS]


def test_windows_line_ends_are_other_white_space():
    text = plain(DOCUMENTS).replace("\n", "\r\n")
    call = found(HumanMessage(f"Notes:\r\n{text}\r\n\r\nBe kind.\r\n\r\nQuestion: {Q}"))
    assert len(texts_of(call)) == 3
    assert "Be kind." in read_by_the_model(call.request)
    assert call.request.messages[-1]["content"] == Q


def test_a_document_that_is_the_whole_message_is_no_question():
    call = found(HumanMessage(DOCUMENTS[0].page_content), documents=DOCUMENTS[:1])
    assert call.source == "none"
    assert DOCUMENTS[0].page_content in read_by_the_model(call.request)


def test_marked_and_retrieved_documents_in_one_prompt():
    """Marks have the higher rank: what is only retrieved stays, and is not lost."""
    marked = f"<document>\n{DOCUMENTS[0].page_content}\n</document>"
    call = found(HumanMessage(f"{marked}\n\n{DOCUMENTS[1].page_content}\n\nQuestion: {Q}"))
    everything = "\n".join([read_by_the_model(call.request), *texts_of(call)])
    assert call.source == "mark"
    assert texts_of(call) == [DOCUMENTS[0].page_content]
    assert all(one.page_content in everything for one in DOCUMENTS[:2])


def test_a_scratchpad_in_one_text_keeps_its_steps():
    pad = (
        f"Question: {Q}\nThought: I should search.\nAction: search\nAction Input: boat\n"
        f"Observation: {plain(DOCUMENTS)}\nThought: Now I know more.\nAction: look\n"
        "Action Input: pier\nObservation: The pier is in the north.\nThought:"
    )
    call = found(HumanMessage(pad))
    read = read_by_the_model(call.request)
    for line in re.findall(r"(?m)^(?:Thought|Action)[^\n]+", pad):
        assert line in read
    assert "The pier is in the north." in read
    assert texts_of(call) == [one.page_content for one in DOCUMENTS]
    assert call.request.messages[-1]["content"] == Q
