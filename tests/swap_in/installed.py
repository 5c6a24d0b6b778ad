"""Prompts as the installed frameworks have them, read from them: name, source, system, human."""

import re

from langchain_classic.chains.chat_vector_db import prompts as chat_vector_db
from langchain_classic.chains.flare import prompts as flare
from langchain_classic.chains.qa_with_sources import map_reduce_prompt as sources_map
from langchain_classic.chains.qa_with_sources import refine_prompts as sources_refine
from langchain_classic.chains.question_answering import (
    map_reduce_prompt,
    map_rerank_prompt,
    refine_prompts,
)
from langchain_classic.chains.retrieval_qa import prompt as retrieval_qa
from langchain_classic.evaluation.qa import eval_prompt
from langchain_classic.retrievers.document_compressors import (
    chain_extract_prompt,
    chain_filter_prompt,
)
from llama_index.core.chat_engine import condense_plus_context, context
from llama_index.core.evaluation import context_relevancy, faithfulness, relevancy
from llama_index.core.indices.query.query_transform import prompts as transform
from llama_index.core.postprocessor import node
from llama_index.core.prompts import chat_prompts, default_prompts
from llama_index.core.query_engine import citation_query_engine

CONTEXT = ("context_str", "context_msg", "summaries", "text", "context")
QUESTION = ("query_str", "user_input", "query", "question")


def own_names(template):
    """The template with {context} and {question}, and a word for every other variable."""

    def named(match):
        name = match[1]
        if name in CONTEXT:
            return "{context}"
        return "{question}" if name in QUESTION else f"({name})"

    return re.sub(r"(?<!\{)\{(\w+)\}(?!\})", named, template)


def one(name, source, template, system=None):
    human = own_names(template)
    system = None if system is None else own_names(system)
    if "{question}" not in human:  # chat engines put the question into a message of its own
        return (name, source, human, "{question}")
    return (name, source, system, human)


def chat(name, prompt):
    """A chat prompt of LlamaIndex."""
    system, *_, human = (message.content for message in prompt.message_templates)
    return one(name, "llama_index.core chat_prompts", human, system)


QA, WITH_SOURCES = "langchain_classic question_answering", "langchain_classic qa_with_sources"
DEFAULT, ENGINE = "llama_index.core default_prompts", "llama_index.core chat_engine"
EVALUATION = "llama_index.core evaluation"
POST, TRANSFORM = "llama_index.core postprocessor", "llama_index.core query_transform"

# Formatted once before it is used.
EXTRACT = chain_extract_prompt.prompt_template.replace("{{", "{").replace("}}", "}")

INSTALLED = [
    one("map", QA, map_reduce_prompt.QUESTION_PROMPT.template),
    one("map, chat", QA, "{question}", map_reduce_prompt.messages[0].prompt.template),
    one("combine", QA, map_reduce_prompt.COMBINE_PROMPT.template),
    one("combine, chat", QA, "{question}", map_reduce_prompt.messages[0].prompt.template),
    one("map and rerank", QA, map_rerank_prompt.PROMPT.template),
    one("refine, first", QA, refine_prompts.DEFAULT_TEXT_QA_PROMPT.template),
    one("refine, later", QA, refine_prompts.DEFAULT_REFINE_PROMPT.template),
    one("sources, map", WITH_SOURCES, sources_map.QUESTION_PROMPT.template),
    one("sources, combine", WITH_SOURCES, sources_map.COMBINE_PROMPT.template),
    one("sources, first", WITH_SOURCES, sources_refine.DEFAULT_TEXT_QA_PROMPT.template),
    one("sources, later", WITH_SOURCES, sources_refine.DEFAULT_REFINE_PROMPT.template),
    one("vector db", "langchain_classic chat_vector_db", chat_vector_db.QA_PROMPT.template),
    one("retrieval qa", "langchain_classic retrieval_qa", retrieval_qa.PROMPT.template),
    one("flare", "langchain_classic flare", flare.PROMPT.template),
    one("judge", "langchain_classic evaluation.qa", eval_prompt.CONTEXT_PROMPT.template),
    one("judge, step by step", "langchain_classic evaluation.qa", eval_prompt.COT_PROMPT.template),
    one(
        "extract",
        "langchain_classic compressors",
        chain_extract_prompt.prompt_template.replace("{{", "{").replace("}}", "}"),
    ),
    one("filter", "langchain_classic compressors", chain_filter_prompt.prompt_template),
    one("text qa", DEFAULT, default_prompts.DEFAULT_TEXT_QA_PROMPT.template),
    one("llama refine", DEFAULT, default_prompts.DEFAULT_REFINE_PROMPT.template),
    one("tree summarize", DEFAULT, default_prompts.DEFAULT_TREE_SUMMARIZE_PROMPT.template),
    chat("text qa, chat", chat_prompts.CHAT_TEXT_QA_PROMPT),
    chat("tree summarize, chat", chat_prompts.CHAT_TREE_SUMMARIZE_PROMPT),
    one("context engine", ENGINE, context.DEFAULT_CONTEXT_TEMPLATE),
    one("condensing engine", ENGINE, condense_plus_context.DEFAULT_CONTEXT_PROMPT_TEMPLATE),
    one(
        "citations",
        "llama_index.core query_engine",
        citation_query_engine.CITATION_QA_TEMPLATE.template,
    ),
    one(
        "citations, later",
        "llama_index.core query_engine",
        citation_query_engine.CITATION_REFINE_TEMPLATE.template,
    ),
    one("faithful", EVALUATION, faithfulness.DEFAULT_EVAL_TEMPLATE.template),
    one("relevant", EVALUATION, relevancy.DEFAULT_EVAL_TEMPLATE.template),
    one(
        "context relevant",
        EVALUATION,
        context_relevancy.DEFAULT_EVAL_TEMPLATE.template,
    ),
    *[
        one(f"{name}, later", EVALUATION, module.DEFAULT_REFINE_TEMPLATE.template)
        for name, module in (
            ("faithful", faithfulness),
            ("relevant", relevancy),
            ("context relevant", context_relevancy),
        )
    ],
    one("neighbours", POST, node.DEFAULT_INFER_PREV_NEXT_TMPL),
    one("neighbours, later", POST, node.DEFAULT_REFINE_INFER_PREV_NEXT_TMPL),
    one("context engine, later", ENGINE, context.DEFAULT_REFINE_TEMPLATE),
    one("next step", TRANSFORM, transform.DEFAULT_STEP_DECOMPOSE_QUERY_TRANSFORM_TMPL),
    one(
        "decompose",
        TRANSFORM,
        transform.DEFAULT_DECOMPOSE_QUERY_TRANSFORM_TMPL,
    ),
]
