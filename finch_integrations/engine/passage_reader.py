"""Reading passages, each separately after a prefix, and asking questions about what was read.

A passage is read together with the instruction, which is the same for every question; the
questions' own tokens are then fed after all passages of a batch. So several questions share one
reading, and what was read can be kept (`PassageStore`) for questions that come later.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.cache import (
    KVCache,
    align_right,
    cache_length,
    cache_of_passages,
    passages_of,
    pick_from_batch,
    share_cache,
)
from finch_integrations.engine.chunks import chunks_of
from finch_integrations.engine.passage_store import PassageStore
from finch_integrations.engine.prompt import QuestionWindow

# Of a longer question, only the last tokens are scored: their logits fill memory.
_ROWS = 128
# Logits that are computed at once: 256 MB of them in float32.
_LOGITS = 64 << 20

# Called after every batch with (numbers of the passages that were scored, whether they were read
# now, the tokens in the KV cache).
OnBatch = Callable[[Sequence[int], bool, int], None]
# Given the cache of a batch of passages, their lengths in it, [B], and their numbers.
_Use = Callable[[KVCache, Tensor, Sequence[int]], None]


@dataclass(frozen=True, slots=True)
class PassageReader:
    """Reads with one model after one prefix.

    Attributes:
        backbone: The model.
        prefix_ids: The prefix.
        prefix: Its cache; stays as it is.
        store: Keeps what was read; None: nothing is kept.
    """

    backbone: Backbone
    prefix_ids: tuple[int, ...]
    prefix: KVCache
    store: PassageStore | None = None

    def likelihoods(
        self,
        passages: Sequence[tuple[int, ...]],
        windows: Sequence[QuestionWindow],
        wanted: Tensor,
        *,
        room: int,
        on_batch: OnBatch,
    ) -> Tensor:
        """Mean log-likelihood of each question's tokens after each passage.

        score[q, u] = 1/Q · Σ_i log p(q_i | prefix, passage u, instruction, q_<i): arXiv 2204.07496,
        eq. 2.

        Args:
            passages: Token ids; U of them.
            windows: Instruction and question; Q of them, with the same instruction.
            wanted: Which passages to score for which question, bool, [Q, U].
            room: Tokens of passages to read at once, in addition to the prefix and the windows.
            on_batch: Called after every batch.

        Returns:
            float32, [Q, U]; NaN where they are not wanted.
        """
        scores = torch.full((len(windows), len(passages)), torch.nan)
        asked = [_Question.of(window) for window in windows]
        head = asked[0].head
        assert all(question.head == head for question in asked), "one instruction for all"

        def rate(cache: KVCache, lengths: Tensor, batch: Sequence[int]) -> None:
            """Fill in the scores of one batch of passages."""
            cache = align_right(cache, lengths)
            for number, question in enumerate(asked):
                rated = [row for row, passage in enumerate(batch) if wanted[number, passage]]
                at_once = max(1, _LOGITS // (question.rated * self.backbone.spec.vocab_size))
                for _, rows in chunks_of(rated, at_once):
                    whole = len(rows) == len(batch)
                    some = share_cache(cache) if whole else pick_from_batch(cache, rows)
                    found = self.backbone.log_likelihoods(
                        question.ids, some, lengths[rows], rows=question.rated
                    )
                    scores[number, [batch[row] for row in rows]] = found.mean(dim=1)

        self._read_each(
            passages,
            [n for n in range(len(passages)) if wanted[:, n].any()],
            head,
            longest_question=max(len(window.ids) for window in windows) - len(head),
            room=room,
            use=rate,
            on_batch=on_batch,
        )
        return scores

    def unread(self, passages: Sequence[tuple[int, ...]], window: QuestionWindow) -> list[int]:
        """The passages that the store does not hold, as far as it has room for all of them.

        Args:
            passages: Token ids; those at the start come first.
            window: The instruction and any question.
        """
        store = self._useful_store()
        if store is None:
            return []
        head = _Question.of(window).head
        sizes = accumulate(
            (len(passage) + len(head)) * self.backbone.spec.kv_bytes_per_token
            for passage in passages
        )
        keys = [
            self._key(passage, head)
            for passage, size in zip(passages, sizes, strict=True)
            if size <= store.max_bytes
        ]
        store.touch(keys)  # reading the others must not push these out
        known = store.keys()
        return [n for n, key in enumerate(keys) if key not in known]

    def read_ahead(
        self,
        passages: Sequence[tuple[int, ...]],
        numbers: Sequence[int],
        window: QuestionWindow,
        *,
        room: int,
        on_batch: OnBatch,
    ) -> None:
        """Read passages into the store, for questions to come.

        Args:
            passages: Token ids.
            numbers: Which to read, see `unread`.
            window: The instruction and any question.
            room: As for `likelihoods`.
            on_batch: Called after every batch.
        """
        self._read_each(
            passages,
            numbers,
            _Question.of(window).head,
            longest_question=0,
            room=room,
            use=lambda cache, lengths, batch: None,
            on_batch=on_batch,
        )

    def _read_each(
        self,
        passages: Sequence[tuple[int, ...]],
        numbers: Sequence[int],
        head: tuple[int, ...],
        *,
        longest_question: int,
        room: int,
        use: _Use,
        on_batch: OnBatch,
    ) -> None:
        """Read passages, or take them from the store, batch by batch."""
        fixed = cache_length(self.prefix) + len(head) + longest_question
        store = self._useful_store()
        keys = {n: self._key(passages[n], head) if store is not None else "" for n in numbers}
        known = store.keys() if store is not None else set()
        held = [n for n in numbers if keys[n] in known]
        # Stored passages come first: reading the others could push them out of the store.
        queue = [(held, True), ([n for n in numbers if keys[n] not in known], False)]
        while queue:
            group, from_store = queue.pop(0)
            for batch in _batches(group, passages, fixed=fixed, room=room):
                names = [keys[n] for n in batch]
                lengths = torch.tensor([len(passages[n]) + len(head) for n in batch])
                try:
                    if store is not None and from_store:
                        cache = self._recall(names, store)
                        if cache is None:  # pushed out in the meantime, or damaged
                            queue.append((batch, False))
                            continue
                    else:
                        cache = self._read([(*passages[n], *head) for n in batch], names, store)
                    use(cache, lengths + cache_length(self.prefix), batch)
                except torch.OutOfMemoryError:
                    if len(batch) == 1:
                        raise
                    # Others use the GPU, too: take half as much, now and later.
                    room = max(1, room // 2)
                    queue.append((batch, from_store))
                    continue
                longest = max(len(passages[n]) for n in batch)
                on_batch(batch, not from_store, len(batch) * (fixed + longest))
        if store is not None:
            self._weigh(store)

    def _read(
        self,
        sequences: Sequence[tuple[int, ...]],
        keys: Sequence[str],
        store: PassageStore | None,
    ) -> KVCache:
        started = time.perf_counter()
        cache = self.backbone.read_side_by_side(sequences, self.prefix)
        lengths = [len(ids) for ids in sequences]
        self.backbone.note_reading(sum(lengths), started)
        if store is not None:
            texts = passages_of(cache, cache_length(self.prefix), lengths)
            for key, tensors in zip(keys, texts, strict=True):
                store.put(key, tensors)
        return cache

    def _recall(self, keys: Sequence[str], store: PassageStore) -> KVCache | None:
        found = [store.get(key) for key in keys]
        kept = [tensors for tensors in found if tensors is not None]
        return cache_of_passages(self.prefix, kept) if len(kept) == len(keys) else None

    def _useful_store(self) -> PassageStore | None:
        """The store, unless the model reads sooner than what it read is copied to its device."""
        backbone, store = self.backbone, self.store
        if store is None or not (store.max_bytes or store.on_disk):
            return None
        needed = backbone.reading_speed * backbone.spec.kv_bytes_per_token
        if needed and backbone.copy_speed < needed:
            return None
        self._weigh(store)
        return store

    def _weigh(self, store: PassageStore) -> None:
        """Tell a store on disk how fast the model reads."""
        if not store.on_disk:
            return
        backbone = self.backbone
        store.weigh(
            f"{backbone.fingerprint} on {backbone.device_name}",
            backbone.spec.kv_bytes_per_token,
            backbone.reading_speed,
        )

    def _key(self, passage: tuple[int, ...], head: tuple[int, ...]) -> str:
        """Identifies what the model computes of a passage."""
        facts = (self.backbone.fingerprint, self.prefix_ids, passage, head)
        return hashlib.sha256(repr(facts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Question:
    """A question window, split in two.

    Attributes:
        head: The instruction without its last token: read with the passages.
        ids: The rest: that token, whose logits are for the question's first one, and the question.
        rated: How many of the last tokens are scored.
    """

    head: tuple[int, ...]
    ids: tuple[int, ...]
    rated: int

    @classmethod
    def of(cls, window: QuestionWindow) -> "_Question":
        cut = max(0, len(window.ids) - window.length - 1)
        rest = window.ids[cut:]
        return cls(window.ids[:cut], rest, min(window.length, _ROWS, len(rest) - 1))


def _batches(
    numbers: Sequence[int], passages: Sequence[tuple[int, ...]], *, fixed: int, room: int
) -> Iterator[list[int]]:
    """Group passages of similar length, so that little is padded.

    A batch takes no more memory than one text of `fixed + room` tokens, where `fixed` tokens are
    fed with every passage.
    """
    batch: list[int] = []
    for number in sorted(numbers, key=lambda number: len(passages[number])):
        if batch and (len(batch) + 1) * (fixed + len(passages[number])) > fixed + room:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
