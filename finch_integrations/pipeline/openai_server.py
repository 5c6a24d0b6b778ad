"""A model behind an OpenAI-compatible HTTP server, such as llama.cpp's, vLLM or Ollama.

Needs the extra `remote`: pip install "finch-integrations[remote]"
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AsyncExitStack, ExitStack
from typing import Any, Self

import httpx
from httpx_sse import EventSource

from finch_integrations.errors import ConfigurationError, InvalidInputError
from finch_integrations.pipeline.answer_options import AnswerOptions
from finch_integrations.pipeline.ask import AnswerPiece, AskRequest
from finch_integrations.pipeline.server_replies import Attempts, ServerAnswer, ServerErrors
from finch_integrations.types import Message

API_KEY = "FINCH_API_KEY"
# Of `SamplingParams`, as servers call them.
_SENT = frozenset(
    {
        "frequency_penalty",
        "max_tokens",
        "min_p",
        "presence_penalty",
        "repetition_penalty",
        "seed",
        "stop",
        "temperature",
        "top_k",
        "top_p",
    }
)


class OpenAIServer:
    """Names a model of a server; making, copying and pickling one connects to nothing.

    The key is read from the environment for every request. It is kept nowhere, and never part of a
    message or a trace.

    Example:
        server = OpenAIServer("http://localhost:8080/v1", "qwen3-4b")
        rag = FinchRAG(WholeSet(documents), server, scorer="embedded")

    Attributes:
        name: The model's.
        base_url: Of the server's API.
    """

    takes_documents = False

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str = API_KEY,
        timeout: float = 600.0,
        max_retries: int = 2,
    ) -> None:
        """Take the server's address and the name of one of its models.

        Args:
            base_url: Of the API, such as `http://localhost:11434/v1`; without a path `/v1` is
                meant.
            model: As the server names it.
            api_key_env: Name of the environment variable that holds the key, if the server needs
                one.
            timeout: Seconds to wait for the next piece; the first one comes after the server has
                read the whole prompt.
            max_retries: How often to try again before the first piece: after a failed connection,
                and when the server is overloaded (429) or fails (5xx).

        Raises:
            ConfigurationError: An argument is unusable.
        """
        self.base_url = _checked_url(base_url)
        if not isinstance(model, str) or not model.strip():
            raise ConfigurationError(f"model must be the name of the server's model, got {model!r}")
        if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not timeout > 0:
            raise ConfigurationError(f"timeout must be a number of seconds above 0, got {timeout}")
        if not isinstance(max_retries, int) or isinstance(max_retries, bool) or max_retries < 0:
            raise ConfigurationError(
                f"max_retries must be a whole number of at least 0, got {max_retries!r}"
            )
        self.name = model
        self._api_key_env = api_key_env
        self._timeout = timeout
        self._max_retries = max_retries

    def stream(self, request: AskRequest) -> Generator[AnswerPiece, None, None]:
        """Answer piece by piece; closing the generator closes the connection.

        Args:
            request: Without documents; its chat template variables go to servers that take them.

        Raises:
            InvalidInputError: The request has documents.
            ConfigurationError: A sampling option cannot be sent.
            ContextTooLongError: The prompt is longer than the server's window.
            ServerUnavailableError: The server cannot be reached, or failed.
            ServerRefusedError: The server does not accept the request.
        """
        body, errors = self._body(request), self._errors()
        attempts = Attempts(errors, self._max_retries)
        with httpx.Client(timeout=self._timeouts) as client, ExitStack() as stack:
            while True:
                try:
                    response = stack.enter_context(client.stream("POST", self._url, **body))
                    if response.is_success:
                        break
                    response.read()
                    failure: httpx.Response | httpx.TransportError = response
                except httpx.TransportError as error:
                    failure = error
                time.sleep(attempts.delay_after(failure))
            answer = ServerAnswer(errors, [tool["name"] for tool in request.answer.tools])
            with errors.translated():
                for event in EventSource(response).iter_sse():
                    if piece := answer.read(event.data):
                        yield piece
            yield answer.last()

    async def astream(self, request: AskRequest) -> AsyncGenerator[AnswerPiece, None]:
        """Like `stream`, without blocking the event loop; cancelling closes the connection."""
        body, errors = self._body(request), self._errors()
        attempts = Attempts(errors, self._max_retries)
        async with (
            httpx.AsyncClient(timeout=self._timeouts) as client,
            AsyncExitStack() as stack,
        ):
            while True:
                try:
                    response = await stack.enter_async_context(
                        client.stream("POST", self._url, **body)
                    )
                    if response.is_success:
                        break
                    await response.aread()
                    failure: httpx.Response | httpx.TransportError = response
                except httpx.TransportError as error:
                    failure = error
                await asyncio.sleep(attempts.delay_after(failure))
            answer = ServerAnswer(errors, [tool["name"] for tool in request.answer.tools])
            with errors.translated():
                async for event in EventSource(response).aiter_sse():
                    if piece := answer.read(event.data):
                        yield piece
            yield answer.last()

    @property
    def _url(self) -> str:
        return f"{self.base_url}/chat/completions"

    @property
    def _timeouts(self) -> httpx.Timeout:
        return httpx.Timeout(self._timeout, connect=min(10.0, self._timeout))

    def _errors(self) -> ServerErrors:
        key = os.environ.get(self._api_key_env, "")
        return ServerErrors(self.base_url, self.name, self._timeout, self._api_key_env, key)

    def _body(self, request: AskRequest) -> dict[str, Any]:
        """The request's body and headers, as httpx takes them."""
        if request.documents:
            raise InvalidInputError(
                f"{self!r} reads texts, not documents. Choose passages of them first: "
                "ChooseThenGenerate(…), or FinchRAG with a scorer"
            )
        if unknown := sorted(request.sampling.keys() - _SENT):
            raise ConfigurationError(
                f"a model server cannot be asked for {', '.join(unknown)}; "
                f"known: {', '.join(sorted(_SENT))}"
            )
        content: dict[str, Any] = {
            "model": self.name,
            "messages": [_written(message) for message in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **{name: value for name, value in request.sampling.items() if value is not None},
            **_answering(request.answer),
        }
        if request.chat_template_kwargs:
            content["chat_template_kwargs"] = dict(request.chat_template_kwargs)
        key = os.environ.get(self._api_key_env)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return {"json": content, "headers": headers}

    @property
    def identity(self) -> str:
        """Distinguishes models with different answers; contains no secrets."""
        return f"{self.base_url} {self.name}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpenAIServer) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(self.identity)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Mapping[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        return f"OpenAIServer({self.base_url!r}, {self.name!r})"


def _answering(answer: AnswerOptions) -> dict[str, Any]:
    """What an answer may consist of, as the API takes it.

    Raises:
        ConfigurationError: The API has no notation for it.
    """
    body: dict[str, Any] = {}
    if answer.tools:
        body["tools"] = [{"type": "function", "function": dict(tool)} for tool in answer.tools]
        named = {"type": "function", "function": {"name": answer.tool_choice}}
        body["tool_choice"] = {"auto": "auto", "any": "required"}.get(answer.tool_choice, named)
        if answer.parallel_calls is not None:
            body["parallel_tool_calls"] = answer.parallel_calls
    if answer.constraint is not None:
        if answer.constraint.kind != "json_schema":
            raise ConfigurationError(
                f"a model server cannot be asked to follow a {answer.constraint.noun}, only a JSON "
                "schema. Give one, or answer with a local model"
            )
        schema = json.loads(answer.constraint.text)
        facts = {"name": "answer", "schema": schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": facts}
    if answer.reasoning is not None:
        raise ConfigurationError(
            "a model server cannot be told whether to think in a way that all servers know. Give "
            "chat_template_kwargs={'enable_thinking': …} if yours takes them"
        )
    return body


def _written(message: Message) -> dict[str, Any]:
    """A message as the API takes it."""
    calls = [
        {
            "id": call["id"],
            "type": "function",
            "function": {
                "name": call["name"],
                "arguments": json.dumps(call["arguments"], ensure_ascii=False),
            },
        }
        for call in message.get("tool_calls", ())
    ]
    return {**message, "tool_calls": calls} if calls else dict(message)


def _checked_url(base_url: object) -> str:
    """Check a server's address; errors do not repeat what may be a password.

    Raises:
        ConfigurationError: It is unusable.
    """
    try:
        url = httpx.URL(base_url if isinstance(base_url, str) else "")
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        secret = isinstance(base_url, str) and any(sign in base_url for sign in "@?#")
        shown = "one with signs of a password (not shown)" if secret else repr(base_url)
        raise ConfigurationError(
            f"base_url must be a server's address such as http://localhost:8080/v1, got {shown}"
        )
    if url.userinfo or url.query or url.fragment:
        raise ConfigurationError(
            f"base_url must have no password, query or fragment (server: {url.host}). Put the key "
            f"into the environment variable {API_KEY}, or name another one with api_key_env"
        )
    path = url.path.rstrip("/") or "/v1"
    return str(url.copy_with(path=path))
