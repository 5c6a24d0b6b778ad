"""LlamaIndex: a drop-in LLM for query and chat engines that compresses the retrieved nodes.

Needs the extra `llama-index`: pip install "finch-integrations[llama-index]"
"""

from typing import TYPE_CHECKING, Any

from finch_integrations.errors import MissingExtraError

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


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package != "llama_index":
            raise
        raise MissingExtraError(
            f"{name} needs the package llama-index-core, which is not installed. "
            'Install it: pip install "finch-integrations[llama-index]"'
        ) from error
