"""Listens to LlamaIndex's retrievers and remembers which nodes they find.

The listener is part of the process from the import of the adapter on. Nothing that it does raises
into a query engine: the dispatcher sees to that.
"""

import asyncio
import threading
from collections.abc import Hashable, Iterator
from dataclasses import replace
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent, RetrievalStartEvent
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.span import BaseSpan, active_span_id
from llama_index_instrumentation.span_handlers import BaseSpanHandler

from finch_integrations.llama_index.documents import from_node
from finch_integrations.pipeline.evidence import RETRIEVED
from finch_integrations.types import Document


def current_run() -> Hashable:
    """The task or thread that a call belongs to: LlamaIndex's events do not name their run."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return ("thread", threading.get_ident()) if task is None else ("task", id(task))


class _Listener(BaseEventHandler):
    """Remembers queries and nodes."""

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in telemetry."""
        return "FinchEvidence"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        """Take what a retriever reports."""
        if isinstance(event, RetrievalStartEvent):
            query = event.str_or_query_bundle
            text = query.query_str if isinstance(query, QueryBundle) else str(query)
            RETRIEVED.remember_query(text, current_run())
        elif isinstance(event, RetrievalEndEvent):
            RETRIEVED.remember(_documents(event.nodes), current_run())


def _documents(nodes: list[NodeWithScore]) -> Iterator[Document]:
    """Nodes as models are shown them, and their own texts for prompts that leave metadata out."""
    for found in nodes:
        text = found.node.get_content(metadata_mode=MetadataMode.NONE)
        if text.strip():
            document = from_node(found.node, found.score)
            yield document
            if document.text.strip() != text.strip():
                yield replace(document, text=text, metadata=found.node.metadata)


class _Retrieving(BaseSpanHandler[BaseSpan]):
    """Knows which spans are a retriever's, or inside of one's."""

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in telemetry."""
        return "FinchRetrieving"

    def new_span(
        self,
        id_: str,
        bound_args: Any,
        instance: Any = None,
        parent_span_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> BaseSpan | None:
        """Note a span that belongs to retrieving."""
        if isinstance(instance, BaseRetriever) or parent_span_id in self.open_spans:
            return BaseSpan(id_=id_, parent_id=parent_span_id)
        return None

    def prepare_to_exit_span(self, id_: str, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """Forget a span that ends."""
        return self.open_spans.get(id_)

    def prepare_to_drop_span(self, id_: str, *args: Any, **kwargs: Any) -> BaseSpan | None:
        """Forget a span that fails."""
        return self.open_spans.get(id_)


_RETRIEVING = _Retrieving()


def is_retrieving() -> bool:
    """Whether a retriever asks: for other queries, say, which is no answer from documents."""
    return active_span_id.get() in _RETRIEVING.open_spans


def listen() -> None:
    """Begin to listen, once per process."""
    handlers = get_dispatcher().event_handlers
    if not any(isinstance(handler, _Listener) for handler in handlers):
        get_dispatcher().add_event_handler(_Listener())
        get_dispatcher().add_span_handler(_RETRIEVING)


listen()
