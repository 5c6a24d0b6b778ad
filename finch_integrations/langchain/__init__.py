"""LangChain: a chat model for RAG chains that compresses the retrieved documents; a retriever.

Needs the extra `langchain`.
"""

from typing import TYPE_CHECKING

from finch_integrations.errors import install_command
from finch_integrations.lazy import lazy_exports

if TYPE_CHECKING:
    from finch_integrations.langchain.chat_model import ChatFinch
    from finch_integrations.langchain.compressor import FinchCompressor
    from finch_integrations.langchain.documents import document_prompt, format_docs
    from finch_integrations.langchain.middleware import FinchDocumentsMiddleware
    from finch_integrations.langchain.retriever import FinchRetriever

__all__ = [
    "ChatFinch",
    "FinchCompressor",
    "FinchDocumentsMiddleware",
    "FinchRetriever",
    "document_prompt",
    "format_docs",
]

_LAZY = {
    "ChatFinch": "finch_integrations.langchain.chat_model",
    "FinchCompressor": "finch_integrations.langchain.compressor",
    "FinchDocumentsMiddleware": "finch_integrations.langchain.middleware",
    "FinchRetriever": "finch_integrations.langchain.retriever",
    "document_prompt": "finch_integrations.langchain.documents",
    "format_docs": "finch_integrations.langchain.documents",
}
_INSTALL = {
    "langchain_core": install_command("langchain"),
    "langchain": "pip install langchain",
}

__getattr__ = lazy_exports(__name__, _LAZY, _INSTALL)
