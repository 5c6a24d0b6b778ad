"""Ask a local model about a whole document set: Finch KV-cache compression.

Importing the package is cheap; torch and transformers are imported with the engine.
"""

from typing import TYPE_CHECKING

from finch_integrations.config import CompressionConfig, RetrievalConfig, SamplingParams
from finch_integrations.constraints import Constraint
from finch_integrations.errors import (
    ConfigurationError,
    ConstraintError,
    ContextTooLongError,
    FinchError,
    InvalidInputError,
    MissingExtraError,
    ModelLoadError,
    ServerRefusedError,
    ServerUnavailableError,
    UnsupportedModelError,
)
from finch_integrations.lazy import lazy_exports
from finch_integrations.types import (
    CompressionProgress,
    CompressionStats,
    Document,
    DocumentShare,
    Excerpt,
    GenerationResponse,
    Message,
    SelectionStats,
    Tool,
    ToolCall,
)

if TYPE_CHECKING:
    from finch_integrations.engine.context import CompressedContext
    from finch_integrations.engine.engine import FinchEngine
    from finch_integrations.engine.passage_store import PassageStore
    from finch_integrations.engine.selection import Selection
    from finch_integrations.pipeline.elsewhere import ChooseThenGenerate
    from finch_integrations.pipeline.evidence import configure_evidence
    from finch_integrations.pipeline.indexing import index_files
    from finch_integrations.pipeline.openai_server import OpenAIServer
    from finch_integrations.pipeline.rag import FinchRAG
    from finch_integrations.reading import read_documents
    from finch_integrations.retrieval.hybrid import HybridRetriever

__version__ = "0.1.0"

__all__ = [
    "ChooseThenGenerate",
    "CompressedContext",
    "CompressionConfig",
    "CompressionProgress",
    "CompressionStats",
    "ConfigurationError",
    "Constraint",
    "ConstraintError",
    "ContextTooLongError",
    "Document",
    "DocumentShare",
    "Excerpt",
    "FinchEngine",
    "FinchError",
    "FinchRAG",
    "GenerationResponse",
    "HybridRetriever",
    "InvalidInputError",
    "Message",
    "MissingExtraError",
    "ModelLoadError",
    "OpenAIServer",
    "PassageStore",
    "RetrievalConfig",
    "SamplingParams",
    "Selection",
    "SelectionStats",
    "ServerRefusedError",
    "ServerUnavailableError",
    "Tool",
    "ToolCall",
    "UnsupportedModelError",
    "configure_evidence",
    "index_files",
    "read_documents",
]

_LAZY = {
    "CompressedContext": "finch_integrations.engine.context",
    "FinchEngine": "finch_integrations.engine.engine",
    "ChooseThenGenerate": "finch_integrations.pipeline.elsewhere",
    "configure_evidence": "finch_integrations.pipeline.evidence",
    "OpenAIServer": "finch_integrations.pipeline.openai_server",
    "FinchRAG": "finch_integrations.pipeline.rag",
    "PassageStore": "finch_integrations.engine.passage_store",
    "Selection": "finch_integrations.engine.selection",
    "HybridRetriever": "finch_integrations.retrieval.hybrid",
    "index_files": "finch_integrations.pipeline.indexing",
    "read_documents": "finch_integrations.reading",
}

_INSTALL = {
    package: 'pip install "finch-integrations[remote]"' for package in ("httpx", "httpx_sse")
}

__getattr__ = lazy_exports(__name__, _LAZY, _INSTALL)
