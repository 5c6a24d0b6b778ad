"""What a constructor and a call may set, checked and sorted."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from finch_integrations.config import CompressionConfig, SamplingParams, with_overrides
from finch_integrations.errors import ConfigurationError
from finch_integrations.pipeline.answer_options import ANSWER_OPTIONS

_COMPRESSION = frozenset(field.name for field in fields(CompressionConfig))
BUDGETS = frozenset({"target_size", "compression_ratio", "max_kv_bytes"})
SAMPLING = frozenset(field.name for field in fields(SamplingParams))
_OTHERS = frozenset(
    {"chat_template_kwargs", "context_detection", "documents", "instruction", "model", "revision"}
    | {"strict"}
)
# What hosted models take and a local one does not need; accepted so that ours can replace them.
_HOSTED = frozenset(
    {"api_key", "default_headers", "default_query", "extra_body", "extra_headers", "extra_query"}
    | {"headers"}
    | {"max_retries", "openai_api_key", "organization", "request_timeout", "stream_options"}
    | {"stream_usage", "timeout", "user"}
)
# Names of other makers' options that mean the same here.
_ALIASES = {
    "max_completion_tokens": "max_tokens",
    "max_new_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "model_id": "model",
    "model_name": "model",
    "repeat_penalty": "repetition_penalty",
    "stop_sequences": "stop",
}
# What belongs to a connection, or to what one server offers.
_SERVERS = (
    *("async_client", "async_client_kwargs", "client", "client_kwargs", "context_management"),
    *("http_async_client", "http_client", "http_socket_options", "include"),
    *("include_response_headers", "openai_organization", "openai_proxy", "prompt_cache_options"),
    *("root_async_client", "root_client", "service_tier", "store", "stream_chunk_timeout"),
    *("sync_client_kwargs", "tiktoken_model_name", "truncation", "use_previous_response_id"),
    *("use_responses_api", "validate_model_on_init"),
)
# And of those that mean nothing here: what to write.
_INSTEAD = {
    "additional_kwargs": "write its options directly: temperature=…, top_p=…, top_k=…",
    "base_url": "to have a server answer, wrap its model (llm=…), or give FinchRAG an OpenAIServer",
    "batch_size": "leave it out: requests that run at the same time share their steps",
    "device_map": "write model_kwargs={'device_map': …}",
    "do_sample": "write temperature=0 for do_sample=False",
    "format": "write response_format={'type': 'json_object'}, or use structured output",
    "generate_kwargs": "write its options directly: temperature=…, top_p=…, top_k=…",
    "disabled_params": "leave it out: no option is sent to anybody",
    "is_chat_model": "leave it out: the model's own chat template is used",
    "is_function_calling_model": "leave it out: every model can call tools here",
    "json_mode": "write response_format={'type': 'json_object'}, or use structured output",
    "keep_alive": "leave it out: a model stays loaded until close()",
    "logit_bias": "it has no counterpart; a constraint says what an answer may consist of",
    "mirostat": "write temperature, top_p or min_p",
    "mirostat_eta": "write temperature, top_p or min_p",
    "mirostat_tau": "write temperature, top_p or min_p",
    "n": "ask several times, with other seeds",
    "num_ctx": "leave it out: the model's whole window is used, and documents may be longer",
    "num_gpu": "write device='cuda', or model_kwargs={'device_map': …}",
    "num_thread": "leave it out, and set torch's: torch.set_num_threads(…)",
    "openai_api_base": "to have a server answer, wrap its model (llm=…)",
    "pipeline_kwargs": "write its options directly: temperature=…, top_p=…, top_k=…",
    "pipeline": "write model=pipeline.model, tokenizer=pipeline.tokenizer",
    "prompt_key": "leave it out: the model's own chat template is used",
    "reasoning_effort": "write reasoning=True or False",
    "repeat_last_n": "leave it out: repetition_penalty looks at the whole answer",
    "stopping_ids": "write stop=[…], with the strings that end an answer",
    "task": "leave it out: the model answers chats",
    "tfs_z": "write top_p or min_p",
    "thinking": "write reasoning=True or False",
    "tokenizer_kwargs": "leave it out: the model's own tokenizer is used",
    "tokenizer_name": "leave it out: the model's own tokenizer is used",
    "tokenizer_outputs_to_remove": "leave it out: the tokenizer's ids are all that is used",
    "verbosity": "say it in the prompt, or set max_tokens",
    **dict.fromkeys(_SERVERS, "leave it out: there is no server, and no client of one"),
}


@dataclass(frozen=True, slots=True)
class CallOptions:
    """The engine's options for one call.

    Attributes:
        sampling: Fields of `SamplingParams`.
        compression: Fields of `CompressionConfig`.
    """

    sampling: Mapping[str, Any]
    compression: Mapping[str, Any]


def with_known_names(
    values: Mapping[str, Any], known: Iterable[str], *, owner: str
) -> dict[str, Any]:
    """Resolve the other names of constructor options and refuse unknown ones.

    Args:
        values: What the constructor was given.
        known: Its options.
        owner: The class, named in errors.

    Raises:
        ConfigurationError: An option is unknown or given under both of its names.
    """
    resolved = _resolve_aliases(values)
    refuse_unknown(resolved.keys() - _HOSTED, known, owner=owner)
    return resolved


def refuse_unknown(given: Iterable[str], known: Iterable[str], *, owner: str) -> None:
    """Refuse unknown constructor options.

    Args:
        given: Names of the options that were given.
        known: Names of those there are.
        owner: The class, named in errors.

    Raises:
        ConfigurationError: An option is unknown.
    """
    if unknown := sorted(set(given) - set(known)):
        raise ConfigurationError(
            f"{owner} has no option {', '.join(map(repr, unknown))}; {_instead(unknown, known)}"
        )


def check_call(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve the other names of a call's options and refuse those that have no effect.

    Returns:
        What is to change: None leaves an option as it is.

    Raises:
        ConfigurationError: An option is unknown or given under both of its names.
    """
    resolved = _resolve_aliases(kwargs)
    ignored = _HOSTED | ({"n"} if resolved.get("n") in (1, None) else set())
    resolved = {name: value for name, value in resolved.items() if name not in ignored}
    known = _COMPRESSION | SAMPLING | _OTHERS | ANSWER_OPTIONS
    if unknown := sorted(resolved.keys() - known):
        raise ConfigurationError(
            f"a call takes no option {', '.join(map(repr, unknown))}; {_instead(unknown, known)}"
        )
    return {name: value for name, value in resolved.items() if value is not None}


def _instead(unknown: Sequence[str], known: Iterable[str]) -> str:
    """What to write instead of unknown options."""
    if named := [f"{name}: {_INSTEAD[name]}" for name in unknown if name in _INSTEAD]:
        return "; ".join(named)
    return f"known: {', '.join(sorted(known))}"


def split_compression(
    compression: CompressionConfig | Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the budget out of compression options.

    Args:
        compression: A configuration, or fields of one without a budget.

    Returns:
        The budget that a configuration has, and the other options.

    Raises:
        ConfigurationError: There is a budget among the fields, which are further ones.
    """
    if isinstance(compression, CompressionConfig):
        values = {name: getattr(compression, name) for name in sorted(_COMPRESSION)}
        budget = {name: values.pop(name) for name in sorted(BUDGETS)}
        return {name: value for name, value in budget.items() if value is not None}, values
    if clash := sorted(compression.keys() & BUDGETS):
        raise ConfigurationError(f"give {', '.join(clash)} directly and not inside compression=…")
    return {}, dict(compression)


def make_options(
    own: Mapping[str, Any],
    compression: Mapping[str, Any],
    call: Mapping[str, Any],
    *,
    has_scorer: bool = False,
) -> CallOptions:
    """Apply a call's options over the model's. None leaves an option as it is.

    Args:
        own: The model's sampling options and budgets.
        compression: The model's further compression options.
        call: The call's options; its budget replaces the model's.
        has_scorer: Whether another model chooses the passages.

    Raises:
        ConfigurationError: A value is wrong.
    """
    changes = {name: value for name, value in call.items() if value is not None}
    defaults = {name: value for name, value in {**compression, **own}.items() if value is not None}
    if changes.keys() & BUDGETS:
        defaults = {name: value for name, value in defaults.items() if name not in BUDGETS}
    chosen = defaults | changes
    sampling = {name: chosen[name] for name in sorted(SAMPLING & chosen.keys())}
    with_overrides(SamplingParams(), sampling)
    # A misspelt name inside compression=… must be reported, too, so only known others are left out.
    further = chosen.keys() - SAMPLING - _OTHERS - ANSWER_OPTIONS
    compression = {name: chosen[name] for name in sorted(further)}
    return CallOptions(sampling, check_compression(compression, has_scorer=has_scorer))


def check_compression(
    compression: CompressionConfig | Mapping[str, Any], *, has_scorer: bool
) -> dict[str, Any]:
    """Check compression options.

    Args:
        compression: A configuration, or fields of one.
        has_scorer: Whether another model chooses the passages.

    Returns:
        The fields; those of a configuration without the budgets that it leaves open.

    Raises:
        ConfigurationError: An option is unknown, its value is wrong, or the scorer does nothing.
    """
    if isinstance(compression, CompressionConfig):
        budget, further = split_compression(compression)
        compression = {**budget, **further}
    config = with_overrides(CompressionConfig(), compression)
    if has_scorer and config.method == "finch":
        raise ConfigurationError(
            "a scorer chooses passages and does nothing in the method 'finch', which chooses "
            "by the attention of the model that answers. Leave the scorer out, or take "
            "method='likelihood'"
        )
    return dict(compression)


def _resolve_aliases(values: Mapping[str, Any]) -> dict[str, Any]:
    resolved = dict(values)
    for alias, name in _ALIASES.items():
        if alias in resolved:
            if name in resolved:
                raise ConfigurationError(f"{alias} is another name of {name}; give one of them")
            resolved[name] = resolved.pop(alias)
    return resolved
