"""A small engine chooses, a large one answers; their tokenizers may differ."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finch_integrations import Document, FinchEngine
from finch_integrations.engine.segments import split_segments, translate_segments
from finch_integrations.pipeline.shared_engine import SharedEngine
from tests.tiny import make_input, make_model, make_tokenizer

DOCUMENTS = [
    Document("The tide turns at nine. Bring the ropes. " * 6 + "The lamp oil is in the shed."),
    Document(
        "Nobody rows alone! " * 9 + "Ask for the keys.\n\n" + "The oil is old. " * 8, title="T"
    ),
]
QUESTION = "Where is the lamp oil?"
# A few words' pieces, so that its tokens differ from bytes.
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("i", "s"), (".", "Ġ"), ("o", "i")]
BYTES, MERGING = make_tokenizer(), make_tokenizer(merges=MERGES)


def test_a_scorer_of_the_same_kind_changes_nothing(tokenizer):
    small = FinchEngine(make_model(), tokenizer)
    alone = small.compress(DOCUMENTS, QUESTION, target_size=120)
    guided = FinchEngine(make_model(), tokenizer, scorer=small)
    context = guided.compress(DOCUMENTS, QUESTION, target_size=120)
    assert torch.equal(context.kept[0], alone.kept[0])
    assert context.excerpts == alone.excerpts
    for mine, theirs in zip(context.cache.layers, alone.cache.layers, strict=True):
        torch.testing.assert_close(mine.keys, theirs.keys)


@pytest.mark.parametrize("target_size", [1, 60, 150])
def test_the_scorers_passages_are_kept_in_the_other_models_tokens(target_size):
    small = FinchEngine(make_model(), BYTES)
    large = FinchEngine(make_model("qwen3", heads=6, vocab_size=280), MERGING, scorer=small)
    forwards = []
    large.backbone.model.register_forward_pre_hook(
        lambda _, __, kwargs: forwards.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    seen = []
    context = large.compress(
        DOCUMENTS, QUESTION, target_size=target_size, read_size="all", progress=seen.append
    )
    stats = context.stats
    assert sum(forwards) == stats.prefix_tokens + target_size  # it never read the rest
    assert stats.kept_tokens == target_size
    assert stats.peak_kv_tokens == stats.prefix_tokens + target_size
    assert seen[-1].tokens == seen[-1].total_tokens > stats.document_tokens
    best = max(
        small.extract(DOCUMENTS, QUESTION, target_size=400, read_size="all"), key=lambda e: e.score
    )
    mine = max(context.excerpts, key=lambda excerpt: excerpt.score, default=None)
    if target_size > 1:
        assert mine is not None
        assert mine.document_id == best.document_id
        assert best.text[:20] in DOCUMENTS[int(mine.document_id[-1]) - 1].text
        assert abs(mine.start - best.start) <= 4  # a token's length
    large.generate(context, max_tokens=3)


@pytest.mark.parametrize("target_size", [60, 150])
def test_an_extract_is_what_compress_keeps(target_size):
    small = FinchEngine(make_model(), BYTES)
    large = FinchEngine(make_model("qwen3", heads=6, vocab_size=280), MERGING, scorer=small)
    options = {"target_size": target_size, "read_size": "all"}
    context = large.compress(DOCUMENTS, QUESTION, **options)
    forwards, seen = [], []
    large.backbone.model.register_forward_pre_hook(lambda *_: forwards.append(1))
    excerpts = large.extract(DOCUMENTS, QUESTION, progress=seen.append, **options)
    assert excerpts == context.excerpts
    assert not forwards  # the scorer alone reads
    assert seen[-1].tokens == seen[-1].total_tokens > context.stats.document_tokens


def test_a_byte_budget_is_counted_in_the_answering_models_bytes():
    small = FinchEngine(make_model(kv_heads=4), BYTES)  # its cache is twice as large
    large = FinchEngine(make_model(vocab_size=280), MERGING, scorer=small)
    per_token = large.backbone.spec.kv_bytes_per_token
    assert small.backbone.spec.kv_bytes_per_token == 2 * per_token
    stats = large.compress(DOCUMENTS, QUESTION, max_kv_bytes=150 * per_token).stats
    assert stats.prefix_tokens + stats.kept_tokens + stats.suffix_tokens == 150


def test_who_chooses_is_part_of_what_tells_engines_apart(tokenizer):
    small = FinchEngine(make_model("qwen3"), tokenizer)
    alone, guided = (FinchEngine(make_model(), tokenizer, scorer=s) for s in (None, small))
    assert SharedEngine(alone).identity != SharedEngine(guided).identity


def test_what_a_scorer_has_read_is_kept_for_every_engine_that_it_chooses_for(tokenizer):
    small = FinchEngine(make_model(), tokenizer)
    engines = [FinchEngine(make_model(), tokenizer, scorer=small) for _ in range(2)]
    options = {"target_size": 60, "read_size": "all"}
    first, second = (engine.select(DOCUMENTS, QUESTION, **options).stats for engine in engines)
    assert first.read_tokens == first.document_tokens
    assert second.read_tokens == 0


def test_what_fits_is_kept_whole_without_asking_the_scorer(tokenizer):
    small = FinchEngine(make_model(), tokenizer)
    large = FinchEngine(make_model(), tokenizer, scorer=small)
    small.close()
    assert large.compress(DOCUMENTS, QUESTION, target_size=5000).excerpts == ()


@given(
    texts=st.lists(st.text("the in. \n你é", min_size=1).filter(str.strip), min_size=1, max_size=3),
    swapped=st.booleans(),
)
def test_translated_segments_cover_every_token_once(texts, swapped):
    tokenizers = (MERGING, BYTES) if swapped else (BYTES, MERGING)
    source, target = (make_input(texts, tokenizer=tokenizer).tokens for tokenizer in tokenizers)
    segments = split_segments(source, shortest=3, longest=8)
    translated = translate_segments(segments, source, target)
    covered = [i for s in translated for i in range(s.start, s.end)]
    assert covered == list(range(len(target)))
    assert [s.document for s in translated] == [s.document for s in segments]
    for segment, other in zip(segments, translated, strict=True):
        if len(other):  # at most one token reaches over the border
            assert target.offsets[other.start] <= source.offsets[segment.start]
            following = (*target.offsets, len(target.text))[other.start + 1]
            assert following > source.offsets[segment.start] or len(other) > 1
