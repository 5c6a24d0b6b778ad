"""A server that speaks OpenAI's protocol and takes whole document sets.

Needs the extra `serve`. `finch serve` runs it.
"""

from typing import TYPE_CHECKING

from finch_integrations.errors import install_command
from finch_integrations.lazy import lazy_exports

if TYPE_CHECKING:
    from finch_integrations.serve.app import make_app
    from finch_integrations.serve.settings import ServerSettings

__all__ = ["ServerSettings", "make_app"]

_LAZY = {
    "ServerSettings": "finch_integrations.serve.settings",
    "make_app": "finch_integrations.serve.app",
}
_INSTALL = {
    name: install_command("serve")
    for name in ("fastapi", "prometheus_client", "pydantic", "starlette", "uvicorn")
}

__getattr__ = lazy_exports(__name__, _LAZY, _INSTALL)
