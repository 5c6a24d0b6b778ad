"""How much is read where nothing else is asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finch_integrations import CompressionConfig, FinchEngine
from finch_integrations.engine import budget as module
from finch_integrations.engine.budget import Budget, tokens_to_read
from tests.tiny import make_model, make_tokenizer, text_of

DOCUMENTS = [text_of(300, seed=1), text_of(400, seed=2), text_of(200, seed=3)]
QUESTION = "what is the code"


def read_of(total, kept, read_size="auto"):
    return tokens_to_read(CompressionConfig(read_size=read_size), Budget(kept, kept), total)


@pytest.mark.parametrize(
    ("total", "kept", "read"),
    [
        (8_000, 512, 3_000),  # 3/8 of the documents
        (8_000, 2_048, 6_144),  # three times what is kept
        (3_000, 2_048, 3_000),  # all there is
        (16_384, 512, 6_144),
        (32_000, 512, 6_144),  # no more, however long they are
        (1_000_000, 2_048, 6_144),
        (1_000_000, 10_000, 30_000),
    ],
)
def test_a_share_is_read_up_to_a_cap_and_always_enough_to_choose_from(total, kept, read):
    assert read_of(total, kept) == read


@given(st.integers(1, 200_000), st.data())
def test_up_to_the_caps_length_a_share_is_read_and_beyond_it_no_more(total, data):
    kept = data.draw(st.integers(1, total))
    share = min(total, max(3 * kept, total * 3 // 8))
    read = read_of(total, kept)
    assert read == (share if total * 3 // 8 <= 6_144 else min(share, max(3 * kept, 6_144)))
    assert kept <= read <= read_of(total + 1, kept) <= total + 1


def test_a_number_and_everything_are_not_capped():
    assert read_of(100_000, 512, 50_000) == 50_000
    assert read_of(100_000, 512, "all") == 100_000


def test_with_a_cap_of_all_tokens_the_choice_is_that_of_the_share(monkeypatch):
    def select(read_size="auto"):
        engine = FinchEngine(make_model(), make_tokenizer())  # a fresh one remembers nothing
        return engine.select(DOCUMENTS, QUESTION, target_size=60, read_size=read_size)

    total = select().stats.document_tokens
    share = select(total * 3 // 8)
    for cap in (total, total * 3 // 8):
        monkeypatch.setattr(module, "_MOST_READ", cap)
        assert select().positions == share.positions
        assert select().stats.rated_tokens == share.stats.rated_tokens
    monkeypatch.setattr(module, "_MOST_READ", 200)
    capped = select()
    assert 200 - 96 < capped.stats.rated_tokens <= 200 < share.stats.rated_tokens
    assert capped.positions == select(200).positions
