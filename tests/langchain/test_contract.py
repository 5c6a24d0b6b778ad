"""What every adapter promises, kept by LangChain's."""

from finch_integrations.langchain import ChatFinch, FinchCompressor
from tests.adapters.contract import AdapterContract, Answer, AnswerContract


class TestFinchCompressor(AdapterContract):
    adapter = FinchCompressor


class TestChatFinch(AnswerContract):
    adapter = ChatFinch

    def ask(self, llm, question, **options):
        return read(llm.invoke(question, **options))

    async def aask(self, llm, question, **options):
        return read(await llm.ainvoke(question, **options))

    def stream(self, llm, question, **options):
        return (chunk.text for chunk in llm.stream(question, **options))

    async def astream(self, llm, question, **options):
        async for chunk in llm.astream(question, **options):
            yield chunk.text


def read(message):
    metadata = message.response_metadata
    return Answer(
        text=message.text,
        prompt_tokens=message.usage_metadata["input_tokens"],
        generated_tokens=message.usage_metadata["output_tokens"],
        finish_reason=metadata["finish_reason"],
        model=metadata["model_name"],
        finch=metadata["finch"],
    )
