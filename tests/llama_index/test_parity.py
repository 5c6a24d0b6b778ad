"""The same question and documents give the same text through the engine and both adapters."""

import pytest
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.prompts.chat_prompts import CHAT_TEXT_QA_PROMPT
from llama_index.core.schema import NodeWithScore, TextNode

from finch_integrations.langchain import ChatFinch
from finch_integrations.llama_index import FinchLLM, FinchSynthesizer
from tests.llama_index.conftest import say
from tests.tiny import text_of

CASES = {
    "compressed": {"target_size": 60},
    "by ratio": {"compression_ratio": 0.5},
    "whole": {"target_size": 1000},
    "sampled": {"target_size": 60, "temperature": 0.8, "top_p": 0.9, "seed": 7},
    "own instruction": {"target_size": 60, "instruction": "Say:"},
}
SAMPLING = ("temperature", "top_p", "seed")


def answers(engine, texts, question, max_tokens, options):
    sampling = {name: value for name, value in options.items() if name in SAMPLING}
    rest = {name: value for name, value in options.items() if name not in SAMPLING}
    documents = [{"text": text, "id": f"d{n}"} for n, text in enumerate(texts)]
    nodes = [TextNode(text=document["text"], id_=document["id"]) for document in documents]
    scored = [NodeWithScore(node=node, score=1.0) for node in nodes]
    chat = ChatFinch(engine=engine, max_tokens=max_tokens, **options)
    llm = FinchLLM(engine=engine, max_tokens=max_tokens, **options)
    context = engine.compress(documents, question, **rest)
    return {
        "engine": engine.generate(context, max_tokens=max_tokens, **sampling).text,
        "ChatFinch": chat.invoke(
            question,
            documents=[LangChainDocument(d["text"], id=d["id"]) for d in documents],
        ).text,
        "FinchLLM.chat": llm.chat([say(question)], documents=nodes).message.content,
        "FinchLLM.complete": llm.complete(question, documents=scored).text,
        "FinchSynthesizer": FinchSynthesizer(llm=llm).synthesize(question, scored).response,
    }


@pytest.mark.parametrize("case", CASES)
def test_documents_are_answered_alike(engine, case):
    texts = [text_of(150, seed=n) for n in (1, 2, 3)]
    found = answers(engine, texts, "Where is it?", 12, CASES[case])
    assert set(found.values()) == {found["engine"]}


def test_formatted_prompts_are_answered_alike(engine):
    """A prompt of LlamaIndex's, sent as it is through either adapter."""
    messages = CHAT_TEXT_QA_PROMPT.format_messages(context_str=text_of(300), query_str="Where?")
    options = {"engine": engine, "max_tokens": 12, "target_size": 60}
    through_langchain = ChatFinch(**options).invoke(
        [(message.role.value, message.content) for message in messages]
    )
    assert through_langchain.response_metadata["finch"]["documents_from"] == "pattern"
    assert FinchLLM(**options).chat(messages).message.content == through_langchain.text


@pytest.mark.model
def test_the_embedded_model_answers_alike(embedded_engine):
    texts = [
        "The boat leaves at nine. " * 10 + "It is blue.",
        "The door code of the chemical store is 7316. " + "Ask Ann for the key. " * 10,
    ]
    question = "What is the door code of the chemical store?"
    found = answers(embedded_engine, texts, question, 16, {"target_size": 40})
    assert set(found.values()) == {found["engine"]}
    assert found["engine"].strip()


def test_both_frameworks_share_one_model(folder):
    chat, llm = ChatFinch(model=folder), FinchLLM(model=str(folder))
    assert chat.warm_up().handle.engine is llm.handle.engine
    llm.close()
    assert not chat.handle.loaded
