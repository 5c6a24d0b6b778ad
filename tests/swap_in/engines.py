"""A FinchLLM that keeps what would reach the engine, and nodes to ask about."""

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.schema import TextNode
from pydantic import PrivateAttr

from finch_integrations.llama_index import FinchLLM
from tests.swap_in.test_prompts import PARAGRAPH

Q = "When does the boat to the island leave?"
TEXTS = [
    "The boat to the island leaves at nine, except on Mondays. " + PARAGRAPH * 8,
    "There are two doors, both green. " + PARAGRAPH * 9,
    "The code of the store is 7316. " + PARAGRAPH * 10,
]


def nodes():
    """New nodes with names and metadata."""
    return [
        TextNode(text=text, id_=f"n{n}", metadata={"file": f"{n}.md"})
        for n, text in enumerate(TEXTS)
    ]


class RecorderLLM(FinchLLM):
    """Keeps what would reach the engine, and says what it is told."""

    _calls: list = PrivateAttr(default_factory=list)
    _says: list = PrivateAttr(default_factory=list)

    @property
    def calls(self):
        return self._calls

    def will_say(self, *texts):
        self._says[:] = texts
        return self

    def _stream(self, call):
        self._calls.append(call)
        text = self._says.pop(0) if self._says else "Fine."
        message = ChatMessage(role="assistant", content=text)
        yield ChatResponse(message=message, delta=text, raw={"finch": {}})

    async def _astream(self, call):
        for response in self._stream(call):
            yield response
