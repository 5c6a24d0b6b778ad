"""Other ways to fill a token budget: retrieval, and LongLLMLingua's perplexities.

Each names the document tokens that it keeps, in the order in which the model is to read them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from finch_integrations.bm25 import BM25Index
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.cache import cache_length, share_cache
from finch_integrations.engine.document_tokens import DocumentTokens
from finch_integrations.engine.methods.passages import (
    arrange,
    groups_of,
    take_best,
    texts_of,
)
from finch_integrations.engine.model_input import ModelInput
from finch_integrations.engine.scoring import standardize
from finch_integrations.engine.segments import Segment, split_segments
from finch_integrations.retrieval.encoders import SentenceTransformerEncoder


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How segments are cut and ranked.

    Attributes:
        shortest: Their shortest length in tokens.
        longest: Their longest.
        dense: Rank by embeddings, too, with the same weight as BM25.
        titled: Put the document's title on every segment before it is ranked.
        around: Rank a segment's neighbourhood, too, with the same weight as the segment.
    """

    shortest: int
    longest: int
    dense: bool = False
    titled: bool = False
    around: bool = False


RETRIEVAL = {
    "rag-sentence": Retrieval(32, 96),  # the engine's own segments
    "rag-128": Retrieval(96, 160),
    "rag-passage": Retrieval(160, 320),
    "rag-hybrid": Retrieval(32, 96, dense=True),
    "rag-hybrid-128": Retrieval(96, 160, dense=True),
    "rag-hybrid-passage": Retrieval(160, 320, dense=True),
    "rag-hybrid-titled": Retrieval(32, 96, dense=True, titled=True),
    "rag-hybrid-around": Retrieval(32, 96, dense=True, around=True),
    "rag-hybrid-both": Retrieval(32, 96, dense=True, titled=True, around=True),
}
# "x^restrict" of arXiv 2310.06839, §4.1.
_RESTRICTION = " We can get the answer to this question in the given documents."
# Of the coarse step: passages of this many times the budget stay for the token level, as in the
# authors' code; and by how much the best passage is cut less than the average (eq. 5, δτ).
_COARSE, _SPREAD = 2, 0.3
_PASSAGE = (160, 320)


def rank_by_retrieval(
    name: str, inputs: ModelInput, encoder: SentenceTransformerEncoder
) -> tuple[list[Segment], Tensor]:
    """Cut the documents and score the pieces, see `Retrieval`."""
    how = RETRIEVAL[name]
    documents, question = inputs.tokens, inputs.frame.question
    segments = split_segments(documents, shortest=how.shortest, longest=how.longest)
    texts = texts_of(documents, segments)
    if how.titled:
        texts = [
            text if segment.start == documents.spans[segment.document].start else title + text
            for segment, title, text in zip(
                segments, titles_of(documents, segments), texts, strict=True
            )
        ]
    groups = groups_of(segments)[: 1 + how.around]
    scores = torch.zeros(len(segments))
    for index in BM25Index.build_many(texts, groups):
        scores += standardize(torch.from_numpy(index.scores(question)))
    if how.dense:
        vectors = torch.as_tensor(encoder.encode_documents(texts))
        asked = torch.as_tensor(encoder.encode_query(question))
        for ranges in groups:
            means = torch.stack([vectors[first:end].mean(dim=0) for first, end in ranges])
            scores += standardize(normalize(means, dim=1) @ asked)
    return segments, scores


def titles_of(documents: DocumentTokens, segments: Sequence[Segment]) -> list[str]:
    """The heading of every segment's document, as the model reads it."""
    spans = [documents.spans[segment.document] for segment in segments]
    return [documents.text[documents.offset(s.start) : s.text_start] for s in spans]


class Perplexity:
    """LongLLMLingua (Jiang et al., arXiv 2310.06839) with the answering model as the judge.

    Passages are ranked by the likelihood of question and restriction after them (eq. 2); of the
    best, those tokens stay whose likelihood the question changes most (contrastive perplexity,
    eq. 3), more of them from better passages (eq. 5). Passages are in this package's order, not in
    theirs, so that only the choice differs. Its recovery of the wording in the answer is left out:
    nothing is changed in the answers here.
    """

    def __init__(self, backbone: Backbone, inputs: ModelInput, chunk_length: int) -> None:
        self._backbone = backbone
        self._inputs = inputs
        shortest, longest = _PASSAGE
        self._segments = split_segments(inputs.tokens, shortest=shortest, longest=longest)
        # A token's likelihood needs one before it: the prefix's last one is fed with each text.
        self._before = inputs.frame.prefix[-1:]
        self._cache = backbone.encode(inputs.frame.prefix[:-1], chunk_length)
        self._scores = self._rate_passages()
        self._changes: dict[Segment, Tensor] = {}

    def keep(self, budget: int) -> list[int]:
        """Token positions, exactly `budget` of them."""
        passages = take_best(
            self._segments, self._scores, min(_COARSE * budget, len(self._inputs.tokens))
        )
        share = budget / sum(map(len, passages))
        urgency: dict[int, float] = {}
        for rank, passage in enumerate(passages):
            allowed = min(1.0, max(1e-6, share + _SPREAD * (1 - 2 * rank / len(passages))))
            order = self._change(passage).argsort(descending=True, stable=True)
            for place, index in enumerate(order.tolist()):
                urgency[passage.start + index] = (place + 1) / len(passage) / allowed
        kept = set(sorted(urgency, key=lambda position: urgency[position])[:budget])
        ordered = [i for passage in arrange(passages) for i in range(passage.start, passage.end)]
        return [i for i in ordered if i in kept]

    def _rate_passages(self) -> Tensor:
        tokenizer, window = self._backbone.tokenizer, self._inputs.frame.window
        restriction = tokenizer(_RESTRICTION, add_special_tokens=False).input_ids
        rows = window.length + len(restriction)
        found = [
            self._likelihoods((*self._text(passage), *window.ids, *restriction), rows).mean()
            for passage in self._segments
        ]
        return torch.stack(found)

    def _change(self, passage: Segment) -> Tensor:
        """How much likelier the question makes each token, [number of tokens]."""
        if passage not in self._changes:
            text, question = self._text(passage), self._inputs.frame.window.ids
            asked = self._likelihoods((*question, *text), len(text))
            self._changes[passage] = asked - self._likelihoods(text, len(text))
        return self._changes[passage]

    def _likelihoods(self, ids: Sequence[int], rows: int) -> Tensor:
        lengths = torch.tensor([cache_length(self._cache)])
        fed = (*self._before, *ids)
        return self._backbone.log_likelihoods(fed, share_cache(self._cache), lengths, rows=rows)[0]

    def _text(self, passage: Segment) -> tuple[int, ...]:
        return tuple(self._inputs.tokens.ids[passage.start : passage.end])
