"""Listens to LangChain's runs and remembers which documents they retrieve.

The listener is part of every run of the process from the import of the adapter on. It keeps texts
(`pipeline.evidence`) and which run belongs to which; it never raises into a chain.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document as LangChainDocument
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.tracers.context import register_configure_hook

from finch_integrations.langchain.documents import documents_in
from finch_integrations.pipeline.evidence import RETRIEVED

_MAX_RUNS = 10_000


@dataclass(frozen=True, slots=True)
class Run:
    """Where a run belongs.

    Attributes:
        root: The outermost run.
        retrieving: Whether it is a retriever's, or inside of one's: who asks for other queries,
            say, wants no answer from documents.
    """

    root: UUID | None = None
    retrieving: bool = False


_NO_RUN = Run()
_run: ContextVar[Run] = ContextVar("finch_run", default=_NO_RUN)


def current_run() -> Run:
    """The run that the model's call belongs to."""
    return _run.get()


class _Listener(BaseCallbackHandler):
    """Follows runs to their outermost one, and what passes through them."""

    # In the caller's thread or task: what it notes is valid for the call that comes next.
    run_inline = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: OrderedDict[UUID, Run] = OrderedDict()

    def _start(self, run_id: UUID, parent_run_id: UUID | None, *, retrieving: bool = False) -> Run:
        with self._lock:
            run = Run(run_id)
            if parent_run_id:
                run = self._runs.get(parent_run_id, Run(parent_run_id))
            if retrieving:
                run = replace(run, retrieving=True)
            self._runs[run_id] = run
            while len(self._runs) > _MAX_RUNS:
                self._runs.popitem(last=False)
        return run

    def _end(self, run_id: UUID) -> UUID | None:
        with self._lock:
            root = self._runs.pop(run_id, Run(run_id)).root
        if root == run_id:
            RETRIEVED.end_run(run_id)
        return root

    def on_retriever_start(
        self,
        serialized: dict[str, Any] | None,
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Note what is asked for."""
        run = self._start(run_id, parent_run_id, retrieving=True)
        if isinstance(query, str):
            RETRIEVED.remember_query(query, run.root)

    def on_retriever_end(
        self, documents: Sequence[LangChainDocument], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Remember what was found."""
        _remember(documents, self._end(run_id))

    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember documents that a chain is given."""
        _remember(inputs, self._start(run_id, parent_run_id).root)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Remember documents that a chain passes on, retrieved without a retriever."""
        _remember(outputs, self._end(run_id))

    def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Follow the run."""
        self._start(run_id, parent_run_id)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Remember a tool's documents."""
        artifact = getattr(output, "artifact", None)
        _remember(artifact if artifact is not None else output, self._end(run_id))

    def on_chat_model_start(
        self,
        serialized: dict[str, Any] | None,
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Note the run for the call that comes next."""
        _run.set(self._start(run_id, parent_run_id))

    def on_llm_start(
        self,
        serialized: dict[str, Any] | None,
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Follow the run."""
        self._start(run_id, parent_run_id)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the run."""
        self._end(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the run."""
        self._end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the run."""
        self._end(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the run."""
        self._end(run_id)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the run."""
        self._end(run_id)


def _remember(value: Any, run: UUID | None) -> None:
    RETRIEVED.remember(documents_in(value), run)


_LISTENER = _Listener()
_listener: ContextVar[Any] = ContextVar("finch_listener", default=_LISTENER)
register_configure_hook(_listener, inheritable=True)
