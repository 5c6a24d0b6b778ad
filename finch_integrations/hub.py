"""The Hugging Face hub: whether it can be asked."""

from pathlib import Path

_SECONDS = 5.0


def is_out_of_reach(name: str) -> bool:
    """Whether a model by name is on the hub, and the hub cannot be asked for it.

    It is asked once, for five seconds at most; the libraries that load models would try for most of
    a minute.

    Args:
        name: A hub id, or a folder, which needs no hub.
    """
    from huggingface_hub import get_session, hf_hub_url

    if Path(name).exists() or name.startswith(("/", ".", "~")):
        return False
    try:
        get_session().head(hf_hub_url(name, "config.json"), timeout=_SECONDS)
    except Exception:  # no connection, no permission to make one (offline mode), or no such name
        return True
    return False


def offline_hint(local: bool) -> str:
    """What to add to the error of a model that was only looked for on this machine."""
    if not local:
        return ""
    return " (The hub was not asked: it cannot be reached, or HF_HUB_OFFLINE or --offline is set)"
