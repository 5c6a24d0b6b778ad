"""FinchNodePostprocessor: nodes shortened for any LLM."""

import asyncio

import pytest
import torch
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from finch_integrations import ConfigurationError, InvalidInputError
from finch_integrations.llama_index import FinchNodePostprocessor

FILLER = "Nothing of that kind is said in here today. "
TEXTS = [FILLER * 4 + "The lamp oil is in the red shed.", FILLER * 6, " ", "Lamp oil. " + FILLER]
NODES = [
    NodeWithScore(node=TextNode(text=text, id_=f"n{n}", metadata={"n": n}), score=1 - n / 10)
    for n, text in enumerate(TEXTS)
]
QUESTION = "Where is the lamp oil? In the red shed?"


@pytest.fixture
def postprocessor(engine):
    return FinchNodePostprocessor(engine=engine, target_size=120)


def test_nodes_keep_ids_scores_metadata_and_the_places_of_what_is_kept(postprocessor):
    shortened = postprocessor.postprocess_nodes(NODES, query_str=QUESTION)
    assert NODES[2] in shortened  # has no text to shorten
    changed = [node for node in shortened if node is not NODES[2]]
    assert changed
    for node in changed:
        original = NODES[node.node.metadata["n"]]
        assert (node.node.node_id, node.score) == (original.node.node_id, original.score)
        assert "finch_excerpts" not in original.node.metadata
        assert "finch_excerpts" not in node.node.get_content(MetadataMode.LLM)
        for excerpt in node.node.metadata["finch_excerpts"]:
            text = original.node.text[excerpt["start"] : excerpt["end"]]
            assert text == excerpt["text"]
            assert text in node.node.text
    assert sum(len(node.node.text) for node in changed) < sum(map(len, TEXTS)) / 2
    numbers = [node.node.metadata["n"] for node in shortened]
    assert numbers == sorted(numbers)


def test_async_gives_the_same(postprocessor):
    result = asyncio.run(
        postprocessor.apostprocess_nodes(NODES, query_bundle=QueryBundle(QUESTION))
    )
    assert result == postprocessor.postprocess_nodes(NODES, query_str=QUESTION)


def test_without_text_nothing_happens_and_without_a_query_nothing_can(postprocessor):
    assert postprocessor.postprocess_nodes([]) == []
    assert postprocessor.postprocess_nodes([NODES[2]]) == [NODES[2]]
    with pytest.raises(InvalidInputError, match="no query"):
        postprocessor.postprocess_nodes(NODES)


def test_mistakes_are_named_when_it_is_made():
    with pytest.raises(ConfigurationError, match="no option 'targetsize'"):
        FinchNodePostprocessor(targetsize=3)
    with pytest.raises(ConfigurationError, match="target_size must be"):
        FinchNodePostprocessor(target_size=0)


def test_settings_can_be_stored_and_hold_no_secret():
    postprocessor = FinchNodePostprocessor(
        dtype=torch.float32,
        device=torch.device("cpu"),
        model_kwargs={"token": "hf_secret", "x": 1},
        target_size=3,
    )
    stored = postprocessor.to_json()
    assert "hf_secret" not in stored + repr(postprocessor)
    again = FinchNodePostprocessor.from_json(stored)
    assert again.to_json() == stored
    assert (again.dtype, again.device, again.model_kwargs) == ("float32", "cpu", {"x": 1})


def test_settings_of_a_loaded_model_are_refused(engine):
    with pytest.raises(ConfigurationError, match="device, model_kwargs cannot be applied"):
        FinchNodePostprocessor(engine=engine, device="cpu", model_kwargs={"revision": "x"})
    with pytest.raises(ConfigurationError, match="given twice"):
        FinchNodePostprocessor(model=engine, engine=engine)
