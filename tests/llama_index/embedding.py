"""A deterministic embedding model of LlamaIndex's make."""

from llama_index.core.base.embeddings.base import BaseEmbedding

from tests.encoders import HashEncoder


class HashEmbedding(BaseEmbedding):
    """Words hashed into vectors."""

    def _get_text_embedding(self, text):
        return HashEncoder().encode_query(text).tolist()

    def _get_query_embedding(self, query):
        return HashEncoder().encode_query(query).tolist()

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)
