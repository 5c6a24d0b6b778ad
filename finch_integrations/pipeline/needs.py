"""What a request may need of the device's memory."""

from typing import TYPE_CHECKING

from finch_integrations.config import with_overrides
from finch_integrations.pipeline.ask import AskRequest

if TYPE_CHECKING:
    from finch_integrations.engine.engine import FinchEngine

# What a chat template and the instruction add, in tokens.
_PER_MESSAGE, _AROUND = 16, 256


def bytes_needed(engine: "FinchEngine", request: AskRequest) -> int:
    """Bytes of keys and values that a request needs at most, before anything of it is read.

    Args:
        engine: What would answer it.
        request: The request.

    Raises:
        ConfigurationError: One of its options is wrong.
    """
    from finch_integrations.engine.memory import answering_bytes, reading_bytes

    config = with_overrides(engine.compression, request.compression)
    sampling = with_overrides(engine.sampling, request.sampling)
    texts = [message["content"] for message in request.messages]
    texts += [request.instruction or "", request.closing]
    # Whether all of it is valid text is checked when it is answered.
    text = "\n".join(texts).encode(errors="replace").decode()
    others = engine.count_tokens(text) + _PER_MESSAGE * len(texts) + _AROUND
    # A token has at least one byte: this needs no tokenizer, and budgets limit it anyway.
    documents = sum(len(document.text.encode(errors="replace")) for document in request.documents)
    needed = answering_bytes(
        engine.backbone.spec, config, documents=documents, others=others, answer=sampling.max_tokens
    )
    if documents:
        reader = (engine.scorer or engine).backbone.spec
        needed += reading_bytes(reader, config, documents=documents, others=others)
    return needed


def free_bytes(engine: "FinchEngine") -> int:
    """Memory that is free where the model's layers are."""
    from finch_integrations.engine import memory

    return memory.free_bytes(engine.backbone.layer_devices)
