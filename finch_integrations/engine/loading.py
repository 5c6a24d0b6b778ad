"""From a model's name to a backbone: which files, on which device, in which dtype."""

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from finch_integrations.engine import embedded, registry
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.gguf import load_gguf
from finch_integrations.engine.registry import Lease as Lease
from finch_integrations.engine.registry import release as release
from finch_integrations.errors import ConfigurationError, FinchError, ModelLoadError
from finch_integrations.hub import is_out_of_reach, offline_hint

# Where and how files are found, the tokenizer's as well as the model's.
_HUB_OPTIONS = ("token", "cache_dir", "subfolder", "proxies", "force_download")


def acquire(
    model: str | Path,
    *,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    **model_kwargs: Any,
) -> Lease:
    """Lease a model; it is loaded if this process has not done so yet.

    Raises:
        ConfigurationError: The device or dtype is unknown.
        ModelLoadError: There is no such model, or it cannot be read.
        UnsupportedModelError: The model cannot be compressed for.
    """
    if "device_map" in model_kwargs and device is not None:
        raise ConfigurationError("give either device or device_map, not both")
    target = None if "device_map" in model_kwargs else resolve_device(device)
    wanted = resolve_dtype(dtype, target, model_kwargs)
    name = _canonical_name(model)
    key = repr((name, revision, str(target), str(wanted), sorted(model_kwargs.items(), key=str)))
    return registry.acquire(key, lambda: _load(name, revision, target, wanted, model_kwargs))


def free_memory() -> None:
    """Return freed memory to the system, including the accelerator's caches."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Pick the accelerator, else the CPU, unless a device is named.

    Raises:
        ConfigurationError: The named device does not exist.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"device {str(device)!r} cannot be used: {reason}") from error
    if chosen.type == "meta":
        raise ConfigurationError("device 'meta' cannot be used: it holds no numbers")
    return chosen


def resolve_dtype(
    dtype: str | torch.dtype, device: torch.device | None, model_kwargs: Mapping[str, Any]
) -> str | torch.dtype:
    """Decide the dtype by device and CPU, unless one is named.

    bfloat16 on a CPU without matrix instructions for it is tens of times slower than float32.

    Raises:
        ConfigurationError: The named dtype does not exist.
    """
    if dtype != "auto":
        named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
        if not isinstance(named, torch.dtype) or not named.is_floating_point:
            raise ConfigurationError(
                f"dtype must be 'auto' or a floating-point type such as 'bfloat16', got {dtype!r}"
            )
        return named
    if device is None or "quantization_config" in model_kwargs:
        return "auto"  # transformers' choice: the checkpoint's dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if _cpu_has_fast_bfloat16() else torch.float32


def _cpu_has_fast_bfloat16() -> bool:
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)


def _canonical_name(model: str | Path) -> str:
    """Return the one spelling of a model's name: `embedded`, a hub id, or an absolute path."""
    if not isinstance(model, str | Path) or not str(model).strip():
        raise ConfigurationError(
            f"model must be a hub id, a folder, a .gguf file or 'embedded', got {model!r}"
        )
    if model == embedded.NAME:
        return embedded.NAME
    path = Path(model).expanduser()
    looks_local = isinstance(model, Path) or model.startswith(("/", ".", "~"))
    if path.exists() or looks_local or path.suffix == ".gguf":
        return str(path.resolve())
    return str(model)


def _load(
    name: str,
    revision: str | None,
    device: torch.device | None,
    dtype: str | torch.dtype,
    model_kwargs: dict[str, Any],
) -> Backbone:
    source = str(embedded.MODEL.path()) if name == embedded.NAME else name
    path = Path(source)
    if path.suffix == ".gguf":
        model, tokenizer = load_gguf(path, dtype=dtype, **model_kwargs)
    else:
        if path.is_absolute() and not path.is_dir():
            raise ModelLoadError(f"there is no model folder {source}. Check the path")
        common = {name: model_kwargs[name] for name in _HUB_OPTIONS if name in model_kwargs}
        common |= {
            "revision": revision or "main",
            "local_files_only": path.is_absolute()
            or model_kwargs.get("local_files_only", False)
            or is_out_of_reach(name),
            "trust_remote_code": model_kwargs.get("trust_remote_code", False),
        }
        rest = {name: value for name, value in model_kwargs.items() if name not in common}
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, **common)
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, use_safetensors=True, **common, **rest
            )
        except FinchError:
            raise
        except Exception as error:  # transformers raises OSError, ValueError and more
            hint = offline_hint(common["local_files_only"] and not path.is_absolute())
            raise ModelLoadError(
                f"cannot load the model {name!r}: {error}{hint}\n"
                "Give 'embedded', a .gguf file, a folder with a model, or a hub id"
            ) from error
    if device is not None and "quantization_config" not in model_kwargs:
        model = model.to(device)
    return Backbone(model, tokenizer, name)
