"""How likely tokens were, as OpenAI writes it."""

from collections.abc import Sequence
from typing import Any

from finch_integrations.types import TokenLogprob


def as_openai_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Write the log-probabilities of an answer's tokens, as a chat's choice has them."""

    def written(one: TokenLogprob) -> dict[str, Any]:
        return {"token": one.token, "bytes": list(one.token.encode()), "logprob": one.logprob}

    return {
        "content": [
            {**written(one), "top_logprobs": [written(other) for other in one.top]}
            for one in tokens
        ]
    }
