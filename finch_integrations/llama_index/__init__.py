"""LlamaIndex: a drop-in LLM for query and chat engines that compresses the retrieved nodes.

Needs the extra `llama-index`.
"""

from typing import TYPE_CHECKING

from finch_integrations.errors import install_command
from finch_integrations.lazy import lazy_exports

if TYPE_CHECKING:
    from finch_integrations.llama_index.full_document import FullDocumentPostprocessor
    from finch_integrations.llama_index.llm import FinchLLM
    from finch_integrations.llama_index.postprocessor import FinchNodePostprocessor
    from finch_integrations.llama_index.retriever import FinchNodeRetriever
    from finch_integrations.llama_index.synthesizer import FinchSynthesizer

__all__ = [
    "FinchLLM",
    "FinchNodePostprocessor",
    "FinchNodeRetriever",
    "FinchSynthesizer",
    "FullDocumentPostprocessor",
]

_LAZY = {
    "FinchLLM": "finch_integrations.llama_index.llm",
    "FinchNodePostprocessor": "finch_integrations.llama_index.postprocessor",
    "FinchNodeRetriever": "finch_integrations.llama_index.retriever",
    "FinchSynthesizer": "finch_integrations.llama_index.synthesizer",
    "FullDocumentPostprocessor": "finch_integrations.llama_index.full_document",
}

_INSTALL = {"llama_index": install_command("llama-index")}

__getattr__ = lazy_exports(__name__, _LAZY, _INSTALL)
