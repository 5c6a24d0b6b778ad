"""Hybrid retrieval: from a large collection to the documents that the engine compresses.

Words by BM25 (bm25s), meaning by any embedding model (numpy), fused.
"""

from finch_integrations.config import RetrievalConfig
from finch_integrations.retrieval.build import (
    IndexProgress,
    IndexReport,
    Source,
    build_index,
)
from finch_integrations.retrieval.encoders import Encoder, SentenceTransformerEncoder
from finch_integrations.retrieval.fusion import reciprocal_rank_fusion, score_fusion
from finch_integrations.retrieval.hybrid import HybridRetriever

__all__ = [
    "Encoder",
    "HybridRetriever",
    "IndexProgress",
    "IndexReport",
    "RetrievalConfig",
    "SentenceTransformerEncoder",
    "Source",
    "build_index",
    "reciprocal_rank_fusion",
    "score_fusion",
]
