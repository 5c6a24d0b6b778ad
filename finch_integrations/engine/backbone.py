"""A model with its tokenizer, and the one function that runs it."""

import hashlib
import json
import math
import platform
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from finch_integrations.engine.attention import Record, observe_attention
from finch_integrations.engine.cache import KVCache, cache_length, new_cache, repeat_cache
from finch_integrations.engine.chunks import chunks_of
from finch_integrations.engine.side_by_side import can_feed_side_by_side, feed_side_by_side
from finch_integrations.engine.steps import Step, steps_of
from finch_integrations.engine.support import inspect_model
from finch_integrations.errors import ConfigurationError, UnsupportedModelError

# Fewer tokens say nothing about a model's speed.
_TIMED = 256
_PROBE_BYTES = 32 << 20
# One lock per configuration object: observing attention switches a field on it, and models made
# from one configuration share it.
_locks: dict[int, threading.Lock] = {}
_locks_guard = threading.Lock()


class Backbone:
    """A supported model, its tokenizer and the facts about it; safe to use from several threads.

    Attributes:
        model: The decoder, left exactly as it was given.
        tokenizer: Its tokenizer.
        spec: Facts about the model.
        name: Its name in messages.
        reading_speed: Tokens per second at which it read passages, at best; 0: not measured yet.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        """Check the model.

        Raises:
            UnsupportedModelError: The model cannot be compressed for.
            ConfigurationError: The model is in training mode.
        """
        if model.training:
            raise ConfigurationError("the model is in training mode. Call model.eval() first")
        self.spec = inspect_model(model)
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.reading_speed = 0.0
        self._steps = steps_of(model)
        self._lock = _lock_for(model.config)

    @property
    def device(self) -> torch.device:
        """Where tokens are fed; with a `device_map` other layers may be on other devices."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def device_name(self) -> str:
        """What the device is: a GPU's name, or the processor's kind."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{self.device.type} ({platform.machine()})"

    @property
    def layer_devices(self) -> tuple[torch.device, ...]:
        """The device on which each layer runs and has its keys."""
        return tuple(_device_of(layer) for layer in self.model.base_model.layers)

    @property
    def stop_tokens(self) -> set[int]:
        """Tokens that end an answer."""
        configured = self.model.generation_config.eos_token_id
        tokens = set(configured if isinstance(configured, list) else [configured])
        return (tokens | {self.tokenizer.eos_token_id}) - {None}

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the model for saved contexts: its configuration, dtype and some weights."""
        facts = self.model.config.to_dict()
        for volatile in ("_name_or_path", "transformers_version", "dtype"):
            facts.pop(volatile, None)
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
        digest.update(str(self.model.dtype).encode())
        for weight in self.model.parameters():
            # A few values of every tensor tell fine-tuned models apart without reading them all.
            if weight.is_meta:
                continue  # offloaded to disk
            digest.update(str(weight.detach().flatten()[:4].float().tolist()).encode())
        return f"{facts['model_type']}-{digest.hexdigest()[:16]}"

    @cached_property
    def vocabulary(self) -> str:
        """Identifies the tokenizer: tokens of another tokenizer mean something else."""
        tokens = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        digest = hashlib.sha256(json.dumps(tokens).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def copy_speed(self) -> float:
        """Bytes per second between the model's device and the CPU's memory, measured once."""
        if self.device.type == "cpu":
            return math.inf
        probe = torch.zeros(_PROBE_BYTES, dtype=torch.uint8, device=self.device)
        probe.cpu().to(self.device)  # the first copy also sets things up
        started = time.perf_counter()
        int(probe.cpu().to(self.device)[-1])  # waits for the copies
        return 2 * _PROBE_BYTES / (time.perf_counter() - started)

    @torch.inference_mode()
    def forward(
        self, ids: Sequence[int], cache: KVCache, *, rows: int = 0, record: Record | None = None
    ) -> Tensor:
        """Feed tokens after the cache, which grows by them.

        Args:
            ids: Tokens to feed.
            cache: Changed in place.
            rows: With `record`: how many of the last tokens to observe.
            record: Receives the attention of those tokens, layer by layer.

        Returns:
            Logits for the token after the last one, float32, [vocabulary].

        Raises:
            UnsupportedModelError: With `record`: not all layers see all tokens.
        """
        if record and (reason := self.spec.lacks.get("observe_attention")):
            raise UnsupportedModelError(f"attention cannot be observed in this model: {reason}")
        watching = observe_attention(self.model, rows=rows, record=record) if record else None
        positions = torch.arange(len(ids))[None] + cache_length(cache)
        return self._run([ids], positions, cache, rows=1, hooked=watching)[0, -1].float()

    @torch.inference_mode()
    def forward_each(self, tokens: Sequence[int], caches: Sequence[KVCache]) -> Tensor:
        """Feed one token after each of several caches, of any lengths; they grow by it.

        Args:
            tokens: One for each cache.
            caches: Of one text each; B of them.

        Returns:
            Logits for the tokens after these, float32, [B, vocabulary].
        """
        pairs = zip(tokens, caches, strict=True)
        if not can_feed_side_by_side(self.model):
            return torch.stack([self.forward((token,), cache) for token, cache in pairs])
        batch = [[token] for token in tokens]
        positions = torch.tensor([[cache_length(cache)] for cache in caches])
        together = feed_side_by_side(self.model, caches)
        return self._run(batch, positions, None, rows=1, hooked=together)[:, -1].float()

    def announce(self, token: int, cache: KVCache) -> Step:
        """Announce the next token of an answer, to be fed together with those of others.

        Args:
            token: What will be fed.
            cache: After what; to be left alone until the step was run or cancelled.
        """
        return self._steps.announce(self, token, cache)

    @torch.inference_mode()
    def read_side_by_side(self, sequences: Sequence[Sequence[int]], cache: KVCache) -> KVCache:
        """Feed several texts, each separately after the same cache.

        Args:
            sequences: Tokens of each; B of them, as one batch.
            cache: Stays as it is.

        Returns:
            A cache of B; shorter texts are padded at their end.
        """
        longest = max(map(len, sequences))
        # Causal attention: padding after a text changes nothing before it.
        padded = [[*ids, *[0] * (longest - len(ids))] for ids in sequences]
        grown = repeat_cache(cache, len(sequences))
        if longest:
            positions = torch.arange(longest)[None] + cache_length(cache)
            self._run(padded, positions, grown, rows=1)
        return grown

    def note_reading(self, tokens: int, started: float) -> None:
        """Measure the speed of a reading that has just been made.

        Args:
            tokens: How many were read.
            started: `time.perf_counter()` when that began.
        """
        if tokens < _TIMED:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        speed = tokens / (time.perf_counter() - started)
        # The first time is slow, and so is whatever shares the device with others.
        self.reading_speed = max(self.reading_speed, speed)

    @torch.inference_mode()
    def log_likelihoods(
        self, ids: Sequence[int], cache: KVCache, lengths: Tensor, *, rows: int
    ) -> Tensor:
        """How likely a text's last tokens are after each of several others.

        Args:
            ids: The text, more than `rows` tokens.
            cache: Of B texts, padded at their start; grows.
            lengths: How many tokens each of them has, padding not counted, [B].
            rows: How many of the last tokens to score.

        Returns:
            log p of each of these tokens given all before it, float32, [B, rows].
        """
        fed, total = ids[:-1], cache_length(cache)
        padding = total - lengths
        seen = torch.arange(total + len(fed))[None] >= padding[:, None]
        positions = lengths[:, None] + torch.arange(len(fed))
        batch = self._run(
            [fed] * len(lengths),
            positions,
            cache,
            rows=rows,
            seen=None if not padding.any() else seen,
        )
        wanted = torch.tensor(ids[-rows:], device=batch.device)[:, None]
        # One after another: in float32 the logits of all of them would fill memory.
        return torch.stack(
            [logits.float().log_softmax(dim=-1).gather(1, wanted)[:, 0] for logits in batch]
        ).cpu()

    def _run(
        self,
        batch: Sequence[Sequence[int]],
        positions: Tensor,
        cache: KVCache,
        *,
        rows: int,
        seen: Tensor | None = None,
        hooked: AbstractContextManager[KVCache] | None = None,
    ) -> Tensor:
        """Feed B sequences of one length after a cache of B; return the last rows' logits.

        Args:
            batch: Token ids, [B, Q].
            positions: Their positions, [B or 1, Q].
            cache: Grows; None: `hooked` gives one.
            rows: How many.
            seen: Which tokens of the cache and of the batch there are, [B, N + Q]; None: all.
            hooked: Entered while the model runs; may give it another cache.
        """
        device = self.device
        # Held for only one forward, so that streams over one model take turns token by token.
        with self._lock, hooked or nullcontext() as given:
            output = self.model(
                input_ids=torch.tensor(batch, device=device),
                position_ids=positions.to(device),
                attention_mask=None if seen is None else seen.long().to(device),
                past_key_values=cache if given is None else given,
                use_cache=True,
                logits_to_keep=rows,
            )
        logits: Tensor = output.logits
        return logits

    def encode(self, ids: Sequence[int], chunk_length: int) -> KVCache:
        """Feed tokens, if there are any, to a new cache."""
        cache = new_cache()
        if ids:
            self.prefill(ids, cache, chunk_length)
        return cache

    def prefill(self, ids: Sequence[int], cache: KVCache, chunk_length: int) -> Tensor:
        """Feed many tokens in chunks; return the logits after the last one."""
        for _, chunk in chunks_of(ids, chunk_length):
            logits = self.forward(chunk, cache)
        return logits


def _device_of(layer: torch.nn.Module) -> torch.device:
    # Offloaded weights are elsewhere until they are needed; accelerate's hooks know where.
    for module in layer.modules():
        hook = getattr(module, "_hf_hook", None)
        if (device := getattr(hook, "execution_device", None)) is not None:
            return torch.device(device)
    return next(layer.parameters()).device


def _lock_for(config: Any) -> threading.Lock:
    with _locks_guard:
        key = id(config)
        if key not in _locks:
            _locks[key] = threading.Lock()
            weakref.finalize(config, _locks.pop, key, None)
        return _locks[key]
