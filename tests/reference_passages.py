"""Methods that keep passages once more, slow and obvious: eager attention, loops, plain floats."""

import copy
import math
from itertools import pairwise

import torch
from transformers import DynamicCache

from finch_integrations.pipeline.shorten import GAP
from finch_integrations.sentences import sentence_ends
from finch_integrations.words import words as split_words
from tests.reference import feed


def reference_passages(
    method,
    model,
    inputs,
    segments,
    *,
    target,
    chunk_length,
    reach=128,
    read_size=None,
):
    """Return (kept positions, keys, values); `segments` are (start, end, document)."""
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    documents, frame = inputs.tokens, inputs.frame
    middle = [(start + end) / 2 for start, end, _ in segments]
    around = [
        [
            j
            for j, other in enumerate(segments)
            if other[2] == segment[2] and abs(middle[j] - middle[i]) <= reach
        ]
        for i, segment in enumerate(segments)
    ]
    alone = [[i] for i in range(len(segments))]
    tokens = [
        [[t for j in group for t in range(*segments[j][:2])] for group in groups]
        for groups in (alone, around)
    ]
    if method == "contrast":
        asked = reference_attention(model, inputs, frame.window, chunk_length)
        null = reference_attention(model, inputs, frame.null_window, chunk_length)
        parts = [z_scores(reference_ratios(asked, null, groups)) for groups in tokens]
    else:
        parts = []
    words = [
        split_words("".join(documents.text[documents.offsets[t]] for t in tokens))
        for tokens in headed(documents, segments)
    ]
    for groups in (alone, around):
        joined = [[word for i in group for word in words[i]] for group in groups]
        parts.append(z_scores(reference_bm25(joined, frame.question)))
    scores = [sum(numbers) for numbers in zip(*parts, strict=True)]
    texts = [documents.text_between(start, end) for start, end, _ in segments]
    if method == "likelihood":
        scores = reference_cascade(model, inputs, segments, scores, read_size, texts, words)

    ranked, left = [], target
    for i in copies_last(sorted(range(len(segments)), key=lambda i: (-scores[i], i)), texts):
        part = list(range(*segments[i][:2]))[:left]
        left -= len(part)
        if part:
            ranked.append(part)
    last = []
    while sum(map(len, last)) < target / 4:
        last.insert(0, ranked.pop(0))
    kept = [t for part in sorted(ranked) + last for t in part]
    cache = DynamicCache()
    feed(model, [*frame.prefix, *(documents.ids[t] for t in kept)], cache, start=0)
    return kept, [x.keys[0] for x in cache.layers], [x.values[0] for x in cache.layers]


def reference_ratios(asked, null, groups):
    """For every group of tokens: the mean over heads of the logarithm of a ratio."""
    return [
        mean(
            math.log((sum(a[t] for t in inside) + 1e-5) / (sum(n[t] for t in inside) + 1e-5))
            for a, n in zip(asked, null, strict=True)
        )
        for inside in groups
    ]


def copies_last(ranked, texts):
    """Move what says only what others before it said to the end."""
    said, new, copies = [], [], []
    for i in ranked:
        parts = parts_of(texts[i])
        (copies if all(part in said for part in parts) else new).append(i)
        said += parts
    return new + copies


def parts_of(text):
    """The words of every sentence."""
    ends = [0, *sentence_ends(text), len(text)]
    parts = [text[start:end].split() for start, end in pairwise(ends)]
    return [part for part in parts if part]


def headed(documents, segments):
    """Every segment's tokens after the first 32 of its document's heading that it does not have."""
    found = []
    for start, end, document in segments:
        span = documents.spans[document]
        heading = [t for t in range(span.start, start) if documents.offsets[t] < span.text_start]
        found.append([*heading[:32], *range(start, end)])
    return found


def reference_cascade(model, inputs, segments, words, read_size, texts, bags):
    """Those that were read come first; what the best one leads to comes right after the good."""
    lengths = [end - start for start, end, _ in segments]
    size = sum(lengths) if read_size is None else read_size
    rated = dict(enumerate(reference_likelihoods(model, inputs, segments)))
    scores = reference_scores(reference_shortlist(words, lengths, texts, size), rated, words)
    top = max(scores)
    links = reference_links(scores.index(top), texts, bags, inputs.frame.question)
    good = [i for i, score in enumerate(scores) if score >= min(top, top / 2)]
    links = [0.0 if i in good else link for i, link in enumerate(links)]
    linked = [i for i, link in enumerate(links) if link and math.isclose(link, max(links))]
    linked = sorted(linked, key=lambda i: (-scores[i], i))[:2]
    rest = [score for i, score in enumerate(scores) if i not in good and i not in linked]
    if linked and rest:
        low, high = min(scores[i] for i in good), max(rest)
        for n, i in enumerate(linked, 1):
            scores[i] = low + (high - low) * n / (len(linked) + 1)
    return scores


def reference_shortlist(words, lengths, texts, size):
    """The best by their words within a number of tokens, at least one."""
    read, left = [], size
    for i in copies_last(sorted(range(len(words)), key=lambda i: (-words[i], i)), texts):
        if read and lengths[i] > left:
            break
        read.append(i)
        left -= lengths[i]
    return read


def reference_links(best, texts, bags, question):
    """For every text: how rare the words are that it shares with the best one, not the question."""
    bags = [set(bag) for bag in bags]
    rarity = {}
    for word in bags[best] - set(split_words(question)):
        holders = sum(word in bag for bag in bags)
        if holders <= 3:
            rarity[word] = math.log(1 + (len(texts) - holders + 0.5) / (holders + 0.5))
    said = parts_of(texts[best])
    return [
        sum(rarity[word] for word in rarity if word in bag)
        if any(part not in said for part in parts_of(text))
        else 0.0
        for bag, text in zip(bags, texts, strict=True)
    ]


def reference_scores(read, rated, words):
    """Likelihood and words; the worse half of what was read also counts for all that was not."""
    ranked = sorted(read, key=lambda i: (-words[i], i))
    worse = ranked[len(ranked) // 2 :]
    weight = {i: 1.0 for i in read}
    for i in worse:
        weight[i] += (len(words) - len(read)) / len(worse)
    centre = sum(weight[i] * rated[i] for i in read) / sum(weight.values())
    squares = sum(weight[i] * (rated[i] - centre) ** 2 for i in read)
    spread = math.sqrt(squares / sum(weight.values()))
    scores = {i: (2 * (rated[i] - centre) / spread if spread else 0.0) + words[i] for i in read}
    last = min(scores.values()) - 1
    return [scores.get(i, last - (max(words) - words[i])) for i in range(len(words))]


@torch.no_grad()
def reference_likelihoods(model, inputs, segments):
    """For every segment: how likely the question's tokens are after it alone."""
    documents, frame = inputs.tokens, inputs.frame
    likelihoods = []
    for tokens in headed(documents, segments):
        ids = [*frame.prefix, *(documents.ids[t] for t in tokens), *frame.window.ids]
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
        likelihoods.append(
            mean(
                float(logits[at - 1].log_softmax(dim=-1)[ids[at]])
                for at in range(len(ids) - min(128, frame.window.length), len(ids))
            )
        )
    return likelihoods


def reference_attention(model, inputs, window, chunk_length):
    """For every head of the upper half of the layers: a number for every document token."""
    documents, prefix = inputs.tokens.ids, inputs.frame.prefix
    rows = []
    for start in range(0, len(documents), chunk_length):
        chunk = documents[start : start + chunk_length]
        ids = [*prefix, *chunk, *window.ids]
        attentions = feed(model, ids, DynamicCache(), start=0)
        upper = attentions[len(attentions) // 2 :]
        heads = [layer[0, h].double() for layer in upper for h in range(layer.shape[1])]
        for number, weights in enumerate(heads):
            if start == 0:
                rows.append([])
            for column in range(len(prefix), len(prefix) + len(chunk)):
                rows[number].append(
                    mean(
                        float(weights[row, column])
                        for row in range(len(ids) - window.length, len(ids))
                    )
                )
    return rows


def reference_bm25(words, query):
    """How texts become words has its own tests."""
    average = mean(len(w) for w in words)
    scores = [0.0] * len(words)
    for term in set(split_words(query)):
        holders = sum(term in w for w in words)
        weight = math.log(1 + (len(words) - holders + 0.5) / (holders + 0.5))
        for i, w in enumerate(words):
            f = w.count(term)
            scores[i] += weight * f / (f + 1.5 * (0.25 + 0.75 * len(w) / average))
    return scores


def z_scores(values):
    centre = mean(values)
    spread = math.sqrt(mean((v - centre) ** 2 for v in values))
    return [(v - centre) / spread if spread else 0.0 for v in values]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def left_of(engine, texts, question, **budget):
    """What is left of each text: the passages of `engine.extract`; None for nothing."""
    documents = [{"text": text, "id": str(number)} for number, text in enumerate(texts)]
    excerpts = engine.extract(documents, question, **budget)
    left = []
    for number, text in enumerate(texts):
        joined, end = "", None
        for excerpt in (e for e in excerpts if e.document_id == str(number)):
            if end is not None:
                between = text[end : excerpt.start]
                joined += GAP if between.strip() else between
            joined, end = joined + excerpt.text, excerpt.end
        left.append(joined or None)
    return left
