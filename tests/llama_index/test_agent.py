"""LlamaIndex's ReActAgent over FinchLLM: it works on plain chat, streamed or not."""

import pytest
import torch
from llama_index.core.agent.workflow import AgentStream, ReActAgent, ToolCallResult
from llama_index.core.tools import FunctionTool

from finch_integrations import FinchEngine
from finch_integrations.llama_index import FinchLLM
from tests.tiny import make_model, make_tokenizer

# LlamaIndex's own: its agents' attributes include pydantic's old ones, and a step asks for this.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning"),
]

ACTION = 'Thought: I look it up.\nAction: search\nAction Input: {"query": "boat"}<|im_end|>'
ANSWER = "Thought: I can answer without using any more tools.\nAnswer: The boat is red.<|im_end|>"


@pytest.fixture
def scripted():
    """A model that says one text after the other, whatever it is asked."""
    # Agents' prompts are long for a tokenizer of bytes.
    model, tokenizer = make_model(max_position_embeddings=16_384), make_tokenizer()
    script = [tokenizer(text).input_ids for text in (ACTION, ANSWER)]
    state = {"call": -1, "step": 0, "prompt": False}

    def note(_, args, kwargs):
        reads = kwargs["input_ids"].shape[1] > 1
        if reads and not state["prompt"]:
            state["call"] += 1
            state["step"] = -1
        state["prompt"] = reads
        state["step"] = 0 if reads else state["step"] + 1

    def force(_, args, logits):
        logits = torch.zeros_like(logits)
        logits[..., script[state["call"]][state["step"]]] = 1
        return logits

    model.register_forward_pre_hook(note, with_kwargs=True)
    model.lm_head.register_forward_hook(force)
    return FinchLLM(engine=FinchEngine(model, tokenizer), max_tokens=120)


@pytest.mark.parametrize("streaming", [True, False])
async def test_react_agent_calls_a_tool_and_answers_from_its_result(scripted, streaming):
    asked = []

    def search(query: str) -> str:
        """Search the handbook."""
        asked.append(query)
        return "The red boat leaks."

    agent = ReActAgent(
        tools=[FunctionTool.from_defaults(search)], llm=scripted, streaming=streaming
    )
    handler = agent.run("Which colour has the boat?")
    events = [event async for event in handler.stream_events()]
    result = await handler
    assert str(result) == "The boat is red."
    assert asked == ["boat"]
    outputs = [event.tool_output for event in events if isinstance(event, ToolCallResult)]
    assert [str(output) for output in outputs] == ["The red boat leaks."]
    said = "".join(event.delta for event in events if isinstance(event, AgentStream))
    assert said == ((ACTION + ANSWER).replace("<|im_end|>", "") if streaming else "")
