"""Documents and question in a model's tokens: what every method reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finch_integrations.engine.document_tokens import DocumentTokens, tokenize_documents
from finch_integrations.engine.prompt import Frame, Prompt, build_frame
from finch_integrations.types import Document


@dataclass(frozen=True, slots=True)
class ModelInput:
    """`frame.prefix + tokens.ids + frame.suffix` is the whole prompt.

    Attributes:
        documents: Checked documents.
        prompt: What is asked of them.
        tokens: The documents' tokens.
        frame: The tokens around them.
    """

    documents: Sequence[Document]
    prompt: Prompt
    tokens: DocumentTokens
    frame: Frame

    def __len__(self) -> int:
        return len(self.frame.prefix) + len(self.tokens) + len(self.frame.suffix)


def make_input(tokenizer: Any, documents: Sequence[Document], prompt: Prompt) -> ModelInput:
    """Tokenize checked documents and what is asked of them.

    Raises:
        InvalidInputError: Question or messages are unusable.
        UnsupportedModelError: The tokenizer or its chat template cannot be used.
    """
    frame = build_frame(tokenizer, prompt)
    return ModelInput(documents, prompt, tokenize_documents(tokenizer, documents), frame)
