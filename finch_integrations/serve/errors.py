"""Errors as OpenAI's clients expect them."""

import json
from functools import partial
from typing import Any

from fastapi import Response

from finch_integrations.errors import (
    ConfigurationError,
    ContextTooLongError,
    FinchError,
    InvalidInputError,
    MissingExtraError,
    ModelLoadError,
    UnsupportedModelError,
)

_STATUS: tuple[tuple[type[FinchError], int, str], ...] = (
    (ContextTooLongError, 400, "context_length_exceeded"),
    (ConfigurationError, 400, "invalid_value"),
    (InvalidInputError, 400, "invalid_input"),
    (UnsupportedModelError, 400, "unsupported_by_model"),
    (ModelLoadError, 503, "model_not_loaded"),
    (MissingExtraError, 501, "not_installed"),
)


# Of a message, which may repeat what a request has.
_LONGEST = 2000


class ApiError(Exception):
    """An error with an HTTP status.

    Attributes:
        status: The status.
        message: What is wrong, and how to fix it.
        code: A short name for programs.
        param: The request's field that is wrong, if it is one.
        headers: Further headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        message = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers or {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it be sent to another process."""
        make = partial(ApiError, param=self.param, headers=self.headers)
        return make, (self.status, self.message, self.code)

    @property
    def body(self) -> dict[str, Any]:
        """The error in OpenAI's format."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response_to(self, path: str) -> Response:
        """The error as a response to a request of a path, in that protocol's format."""
        body = {"message": self.message} if is_cohere(path) else self.body
        # ASCII, because a message may repeat what no encoding can write.
        return Response(
            json.dumps(body),
            status_code=self.status,
            media_type="application/json",
            headers=self.headers,
        )


def is_cohere(path: str) -> bool:
    """Whether a request of this path is in Cohere's form."""
    return "/v2/" in path


def as_api_error(error: BaseException) -> ApiError:
    """Give one of the package's errors a status; anything else is the server's fault."""
    if isinstance(error, ApiError):
        return error
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return ApiError(status, str(error), code)
    if isinstance(error, FinchError):
        return ApiError(502, str(error), "generator_failed")
    # Its text may repeat the request.
    return ApiError(500, "the server failed; its log says where", "internal_error")
