"""What LlamaIndex expects of an LLM, as a suite for any `FinchLLM`; it has none of its own.

Subclass it with the fixture `llm`; `prompt` may be replaced.
"""

import asyncio
import copy
import json
import threading

import pytest
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import ChatMessage, LLMMetadata, MessageRole
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.callbacks.token_counting import TokenCountingHandler
from llama_index.core.llms.utils import resolve_llm
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate

from finch_integrations import FinchError


async def collect(llm, method, argument, **kwargs):
    """Call any of the eight methods; returns all responses, of a plain call the only one."""
    result = getattr(llm, method)(argument, **kwargs)
    if method.startswith("a"):
        result = await result
    if "stream" not in method:
        return [result]
    if method.startswith("a"):
        return [response async for response in result]
    return list(result)


def text(response):
    return response.message.content if hasattr(response, "message") else response.text


CHAT = ["chat", "stream_chat", "achat", "astream_chat"]
COMPLETE = ["complete", "stream_complete", "acomplete", "astream_complete"]


class LLMContract:
    prompt = "Where does the boat leave?"

    def argument(self, method):
        return [ChatMessage(content=self.prompt)] if "chat" in method else self.prompt

    def test_it_is_an_llm_that_says_what_it_is(self, llm):
        assert BaseLLM.__name__ in [base.__name__ for base in type(llm).__mro__]
        assert llm.class_name() == type(llm).__name__
        assert isinstance(llm.metadata, LLMMetadata)
        assert llm.metadata.is_chat_model
        assert llm.metadata.is_function_calling_model
        assert llm.metadata.context_window > llm.metadata.num_output > 0
        assert resolve_llm(llm) is llm

    @pytest.mark.parametrize("method", CHAT + COMPLETE)
    async def test_all_methods_say_the_same(self, llm, method):
        expected = llm.chat([ChatMessage(content=self.prompt)])
        responses = await collect(llm, method, self.argument(method))
        assert text(responses[-1]) == expected.message.content
        assert responses[-1].raw["usage"] == expected.raw["usage"]

    @pytest.mark.parametrize("method", CHAT)
    async def test_chats_answer_as_the_assistant(self, llm, method):
        for response in await collect(llm, method, self.argument(method)):
            assert response.message.role == MessageRole.ASSISTANT

    @pytest.mark.parametrize("method", [m for m in CHAT + COMPLETE if "stream" in m])
    async def test_streams_give_new_text_and_all_text(self, llm, method):
        responses = await collect(llm, method, self.argument(method))
        said = ""
        for response in responses:
            said += response.delta
            assert text(response) == said
        assert len(responses) > 1
        assert all(response.raw is None for response in responses[:-1])

    @pytest.mark.parametrize("method", CHAT + COMPLETE)
    async def test_raw_is_plain_data_with_the_usage(self, llm, method):
        raw = (await collect(llm, method, self.argument(method)))[-1].raw
        assert json.loads(json.dumps(raw)) == raw
        usage = raw["usage"]
        assert 0 < usage["completion_tokens"] <= llm.metadata.num_output
        assert usage["prompt_tokens"] > 0
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    @pytest.mark.parametrize("method", CHAT + COMPLETE)
    async def test_a_call_is_one_event_with_the_models_own_counts(self, llm, method):
        debug = LlamaDebugHandler(print_trace_on_end=False)
        counter = TokenCountingHandler(tokenizer=str.split)
        llm.callback_manager = CallbackManager([debug, counter])
        usage = (await collect(llm, method, self.argument(method)))[-1].raw["usage"]
        assert len(debug.get_event_pairs(CBEventType.LLM)) == 1
        assert len(counter.llm_token_counts) == 1
        assert counter.prompt_llm_token_count == usage["prompt_tokens"]
        assert counter.completion_llm_token_count == usage["completion_tokens"]

    @pytest.mark.parametrize("method", CHAT + COMPLETE)
    async def test_options_of_a_call_count(self, llm, method):
        argument = self.argument(method)
        short = (await collect(llm, method, argument, max_tokens=2))[-1]
        assert short.raw["usage"]["completion_tokens"] <= 2
        assert (await collect(llm, method, argument))[-1].raw["usage"]["completion_tokens"] > 2

    @pytest.mark.parametrize("method", CHAT + COMPLETE)
    async def test_wrong_options_are_errors_that_nobody_swallows(self, llm, method):
        with pytest.raises(FinchError) as caught:
            await collect(llm, method, self.argument(method), temprature=1)
        assert not isinstance(caught.value, ValueError | TypeError)
        assert "temprature" in str(caught.value)

    @pytest.mark.parametrize("method", ["achat", "acomplete", "astream_chat", "astream_complete"])
    async def test_the_event_loop_runs_on(self, llm, method):
        """The model waits until the loop has gone on, which it never does if it is blocked."""
        beats, beaten = 0, threading.Event()

        async def heart():
            nonlocal beats
            while True:
                await asyncio.sleep(0.001)
                beats += 1
                if beats > 3:
                    beaten.set()

        model = llm.handle.engine.backbone.model
        hook = model.register_forward_pre_hook(lambda *_: beaten.wait(2) and None)
        beating = asyncio.create_task(heart())
        await collect(llm, method, self.argument(method), max_tokens=2)
        beating.cancel()
        hook.remove()
        assert beats > 3

    async def test_concurrent_calls_do_not_mix(self, llm):
        chats = [[ChatMessage(content=f"What is {number}?")] for number in range(3)]
        alone = [llm.chat(chat).message.content for chat in chats]
        together = await asyncio.gather(*(llm.achat(chat) for chat in chats))
        assert [response.message.content for response in together] == alone

    def test_system_text_and_history_reach_the_model(self, llm):
        def tokens(*turns):
            messages = [ChatMessage(role=role, content=said) for role, said in turns]
            return llm.chat(messages, max_tokens=1).raw["usage"]["prompt_tokens"]

        question = ("user", self.prompt)
        # Some chat templates have a system text of their own, so two are compared.
        brief = tokens(("system", "Be brief."), question)
        assert tokens(("system", "Be brief and friendly."), question) > brief
        history = ("user", "Hello."), ("assistant", "Hi!")
        assert tokens(("system", "Be brief."), *history, question) > brief

    async def test_prompts_can_be_predicted_and_streamed(self, llm):
        prompt = PromptTemplate("{greeting} " + self.prompt)
        expected = llm.complete(f"Hello! {self.prompt}").text
        assert llm.predict(prompt, greeting="Hello!") == expected
        assert await llm.apredict(prompt, greeting="Hello!") == expected
        assert "".join(llm.stream(prompt, greeting="Hello!")) == expected
        stream = await llm.astream(prompt, greeting="Hello!")
        assert "".join([piece async for piece in stream]) == expected

    def test_a_system_prompt_stands_before_predictions(self, llm):
        prompt = ChatPromptTemplate([ChatMessage(content=self.prompt)])
        llm.system_prompt = "Be brief."
        expected = llm.chat(
            [ChatMessage(role="system", content="Be brief."), ChatMessage(content=self.prompt)]
        )
        assert llm.predict(prompt) == expected.message.content

    def test_copies_share_the_model(self, llm):
        twin = copy.deepcopy(llm)
        assert twin.to_dict() == llm.to_dict()
        assert twin.handle.engine is llm.handle.engine

    def test_settings_are_plain_data(self, llm):
        assert json.loads(llm.to_json()) == llm.to_dict()
        assert llm.to_dict()["class_name"] == llm.class_name()
        assert json.loads(json.dumps(llm.to_payload()))["model_name"] == llm.metadata.model_name
