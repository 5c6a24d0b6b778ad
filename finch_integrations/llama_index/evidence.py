"""Listens to LlamaIndex's retrievers and remembers which nodes they find.

The listener is part of the process from the import of the adapter on. Nothing that it does raises
into a query engine: the dispatcher sees to that.
"""

import asyncio
import threading
from collections.abc import Hashable, Iterator
from dataclasses import replace
from typing import Any

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent, RetrievalStartEvent
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

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


def listen() -> None:
    """Begin to listen, once per process."""
    handlers = get_dispatcher().event_handlers
    if not any(isinstance(handler, _Listener) for handler in handlers):
        get_dispatcher().add_event_handler(_Listener())


listen()
