"""What the adapters of all frameworks have in common: their options, and the model that they share.

Needs pydantic, which the frameworks bring.
"""

from finch_integrations.adapters.choosing import ChoosingAdapter
from finch_integrations.adapters.llm import LLMAdapter
from finch_integrations.adapters.model import Adapter

__all__ = ["Adapter", "ChoosingAdapter", "LLMAdapter"]
