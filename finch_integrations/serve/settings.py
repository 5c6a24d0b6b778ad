"""What a server allows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finch_integrations.errors import ConfigurationError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Limits and defaults of a server.

    Attributes:
        host: The address that it listens on; beyond loopback a key is needed.
        api_key: What clients must send as `Authorization: Bearer …`; None: nothing.
        max_body_bytes: The largest request.
        max_waiting_bytes: All requests that run or wait, as they were sent; further ones get
            status 429.
        memory_bytes: Keys and values of all requests that run, in the device's memory; further ones
            wait. None: half of what is free once the model is loaded.
        max_documents: Documents of one request.
        max_tokens: Tokens of one answer.
        default_tokens: Tokens of an answer whose request has no limit.
        max_requests: Requests that run or wait at the same time; further ones get status 429.
        timeout: Seconds that a request may take from its arrival to its end.
        body_timeout: Seconds that a client may take to send a request.
        compression: Fields of `CompressionConfig` to change for all requests.
    """

    host: str = "127.0.0.1"
    api_key: str | None = field(default=None, repr=False)
    max_body_bytes: int = 32 << 20
    max_waiting_bytes: int = 256 << 20
    memory_bytes: int | None = None
    max_documents: int = 2000
    max_tokens: int = 4096
    default_tokens: int = 1024
    max_requests: int = 64
    timeout: float = 600.0
    body_timeout: float = 30.0
    compression: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not self.api_key:
            raise ConfigurationError(
                f"a server on {self.host} can be reached from other machines and needs a key. "
                "Set the environment variable FINCH_SERVE_KEY, or listen on 127.0.0.1"
            )
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ConfigurationError("the server's key must be printable ASCII text")
        for name in (
            "max_body_bytes",
            "max_waiting_bytes",
            "memory_bytes",
            "max_documents",
            "max_tokens",
            "default_tokens",
            "max_requests",
            "timeout",
            "body_timeout",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigurationError(f"{name} must be above 0, got {value!r}")

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        return self.host in LOOPBACK
