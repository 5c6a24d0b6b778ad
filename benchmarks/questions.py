"""Questions over documents, from public datasets' rows or made up: what `make_tasks` writes.

Every function takes a dataset's rows and a seed and yields `Question`s in an order that only the
seed decides. A question has its gold pages and a stream of further pages, most wanted first.
"""

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from finch_integrations.bm25 import BM25Index

Row = Mapping[str, Any]
T = TypeVar("T")

_MADE_UP = 1000  # questions, at most

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# About 250 tokens: whole sentences, from 1000 characters on; the last piece is shorter.
_PIECE = re.compile(r".{1000,}?(?:\n|(?<=[.!?])\s|\Z)|.+", re.DOTALL)

_WORDS = {
    kind: words.split()
    for kind, words in {
        "adjective": "amber brisk cobalt dapper eager feral gilded hollow ivory jolly keen lunar "
        "mellow nimble opal plush quiet rustic silver tawny upbeat velvet wistful young zesty",
        "noun": "anchor beacon canyon dagger ember falcon garnet hammer island jacket kettle "
        "lantern meadow nugget orchid paddle quartz ribbon saddle thimble umbrella violet walnut",
        "first name": "Agnes Boris Clara Dmitri Edith Felix Greta Hugo Irene Jonas Karin Lionel "
        "Mabel Nestor Olive Pavel Ruth Silas Tessa Viktor",
        "last name": "Abbott Brandt Castell Dorsey Ekberg Fontaine Grimaldi Hartwell Ibsen Jansen "
        "Kowalski Lindqvist Moreau Novak Okafor Petrov Quillfeldt Rossi Szabo Tanaka",
        "city": "Antwerp Bergen Cork Dresden Esbjerg Faro Ghent Haifa Izmir Kaunas Lausanne Malaga "
        "Nantes Oulu Porto Riga Seville Turku Utrecht Vigo",
    }.items()
}


@dataclass(frozen=True, slots=True)
class Page:
    """A document to be; the documents of a question are in the order of `place`."""

    text: str
    title: str = ""
    place: float = 0


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the pages that answer it and an iterator of pages to hide them among."""

    qid: str
    question: str
    answers: tuple[str, ...]
    gold: tuple[Page, ...]
    others: Iterator[Page]


def squad_questions(rows: Iterable[Row], seed: str) -> Iterator[Question]:
    """Questions of SQuAD 2.0 over their article, around the paragraph that answers them.

    Where the article ends, paragraphs of other articles come before and after it.
    """
    rows = list(rows)
    articles = squad_articles(rows)
    for row in _shuffled(rows, random.Random(seed)):
        article = articles[row["title"]]
        foreign = [page for pages in articles.values() if pages is not article for page in pages]
        at = next(n for n, page in enumerate(article) if page.text == row["context"])
        answers = _distinct(row["answers"]["text"])
        rng = random.Random(f"{seed} {row['id']}")
        gold, others = _in_article(article, at, foreign, answers, rng)
        yield Question(f"squad-{row['id']}", row["question"], answers, gold, others)


def squad_articles(rows: Iterable[Row]) -> dict[str, list[Page]]:
    """The paragraphs of every article of SQuAD, in its order."""
    articles: dict[str, dict[str, Page]] = {}
    for row in rows:
        page = Page(row["context"], row["title"].replace("_", " "))
        articles.setdefault(row["title"], {})[page.text] = page
    return {title: list(pages.values()) for title, pages in articles.items()}


def covid_questions(rows: Iterable[Row], seed: str) -> Iterator[Question]:
    """Questions of COVID-QA over their paper, in pieces, around the one that answers them.

    Where the paper ends, pieces of other papers come before and after it.
    """
    rows = list(rows)
    papers = {text: _pieces(text) for text in dict.fromkeys(row["context"] for row in rows)}
    for row in _shuffled(rows, random.Random(seed)):
        answers = _distinct(row["answers"]["text"])
        if not answers:
            continue
        paper = papers[row["context"]]
        foreign = [page for pieces in papers.values() if pieces is not paper for _, page in pieces]
        first = row["answers"]["answer_start"][0]
        at = max(n for n, (start, _) in enumerate(paper) if start <= first)
        rng = random.Random(f"{seed} {row['id']}")
        gold, others = _in_article([page for _, page in paper], at, foreign, answers, rng)
        yield Question(f"covid-{row['id']}", row["question"], answers, gold, others)


def nq_questions(rows: Iterable[Row], seed: str) -> Iterator[Question]:
    """Natural Questions, each among the other questions' passages, those BM25 ranks best first."""
    rows = list(rows)
    passages = _distinct(row["text"] for row in rows)
    index = BM25Index.build(passages)
    for row in _shuffled(rows, random.Random(seed)):
        answers = _distinct(row["answers"])
        ranking = np.argsort(-index.scores(row["question"]), kind="stable")
        pages = (Page(passages[number]) for number in ranking)
        rng = random.Random(f"{seed} {row['example_id']}")
        gold, others = _scattered([Page(row["text"].strip())], pages, answers, rng)
        yield Question(f"nq-{row['example_id']}", row["question"], answers, gold, others)


def hotpot_questions(rows: Iterable[Row], seed: str) -> Iterator[Question]:
    """Questions of HotpotQA among their own distractors, then among other questions' pages."""
    asked = [row for row in rows if row["answer"] not in ("yes", "no")]  # no words of a page
    contexts = {row["id"]: _hotpot_pages(row) for row in asked}
    pool = list(dict.fromkeys(page for pages in contexts.values() for page in pages))
    for row in _shuffled(asked, random.Random(seed)):
        rng = random.Random(f"{seed} {row['id']}")
        pages, wanted = contexts[row["id"]], set(row["supporting_facts"]["title"])
        own = [page for page in pages if page.title not in wanted]
        gold, others = _scattered(
            [page for page in pages if page.title in wanted],
            [*_shuffled(own, rng), *_shuffled(pool, rng)],
            [row["answer"]],
            rng,
        )
        yield Question(f"hotpot-{row['id']}", row["question"], (row["answer"],), gold, others)


def registry_questions(seed: str) -> Iterator[Question]:
    """Made up: one key among pages of keys with values."""
    for number in range(_MADE_UP):
        rng = random.Random(f"{seed} {number}")
        pages = _registry(rng)
        first = next(pages)
        key, value = rng.choice(first.text.splitlines()).split(": ")
        question = f"What value does the registry give for the key {key}?"
        gold, others = _scattered([first], pages, [value], rng)
        yield Question(f"kv-{number:03}", question, (value,), gold, others)


def needle_questions(paragraphs: Iterable[Page], seed: str) -> Iterator[Question]:
    """Made up: facts hidden in paragraphs.

    In turn one fact; one among others of its kind; two that answer only together, along with two
    that answer another question.
    """
    hay = [page for page in paragraphs if len(page.text) <= 1500]
    for number in range(_MADE_UP):
        rng = random.Random(f"{seed} {number}")
        question, answer, facts, decoys = _needle(number % 3, rng)
        plain = list(_without([answer], _shuffled(hay, rng)))
        if len(plain) < len(facts) + len(decoys):
            continue
        told = [_hide(fact, plain.pop(), rng) for fact in (*facts, *decoys)]
        gold, others = _scattered(told[: len(facts)], [*told[len(facts) :], *plain], [answer], rng)
        yield Question(f"needle-{number:03}", question, (answer,), gold, others)


def _in_article(
    article: Sequence[Page],
    at: int,
    foreign: Sequence[Page],
    answers: Iterable[str],
    rng: random.Random,
) -> tuple[tuple[Page, ...], Iterator[Page]]:
    """A page and its article from there outwards, then other pages on both sides of it."""
    share = rng.random()  # of what comes before: the page may be placed anywhere

    def others() -> Iterator[Page]:
        before, after = at - 1, at + 1
        while before >= 0 or after < len(article):
            if after == len(article) or (before >= 0 and rng.random() < share):
                yield replace(article[before], place=before)
                before -= 1
            else:
                yield replace(article[after], place=after)
                after += 1
        for distance, page in enumerate(_without(answers, _shuffled(foreign, rng)), len(article)):
            yield replace(page, place=-distance if rng.random() < share else distance)

    return (replace(article[at], place=at),), others()


def _scattered(
    gold: Iterable[Page], others: Iterable[Page], answers: Iterable[str], rng: random.Random
) -> tuple[tuple[Page, ...], Iterator[Page]]:
    """Gold pages and others at random places."""
    placed = tuple(replace(page, place=rng.random()) for page in gold)
    return placed, (replace(page, place=rng.random()) for page in _without(answers, others))


def _without(answers: Iterable[str], pages: Iterable[Page]) -> Iterator[Page]:
    """Pages that contain none of the answers: only the gold pages may have them."""
    lowered = [answer.lower() for answer in answers]
    return (page for page in pages if not any(answer in page.text.lower() for answer in lowered))


def _hotpot_pages(row: Row) -> list[Page]:
    titles, texts = row["context"]["title"], row["context"]["sentences"]
    return [
        Page("".join(sentences).strip(), title)
        for title, sentences in zip(titles, texts, strict=True)
    ]


def _pieces(paper: str) -> list[tuple[int, Page]]:
    """A paper in pieces of whole sentences, with the character each starts at."""
    title = paper.strip().partition("\n")[0].strip()
    found = ((match.start(), match[0].strip()) for match in _PIECE.finditer(paper))
    return [(start, Page(text, title)) for start, text in found if text]


def _registry(rng: random.Random) -> Iterator[Page]:
    """Pages of 20 keys with values, about 350 tokens each; no key comes twice."""
    known: set[str] = set()
    for number in rng.sample(range(1, 1000), 999):
        lines: list[str] = []
        while len(lines) < 20:
            name = _draw("adjective, noun", 1, rng)[0].replace(" ", "-")
            key = f"{name}-{rng.randrange(10, 100)}"
            if key not in known:
                known.add(key)
                lines.append(f"{key}: {rng.randrange(100_000, 1_000_000)}")
        yield Page("\n".join(lines), f"Registry page {number}")


def _needle(kind: int, rng: random.Random) -> tuple[str, str, list[str], list[str]]:
    """A question, its answer, the facts that give it and facts that only look like them."""
    if kind == 0:
        (person,) = _draw("first name, last name", 1, rng)
        answer = f"{_draw('noun', 1, rng)[0]}{rng.randrange(100, 1000)}"
        fact = f"The password that {person} chose for the archive is {answer}."
        return f"Which password did {person} choose for the archive?", answer, [fact], []
    if kind == 1:
        codes = [str(code) for code in rng.sample(range(100_000, 1_000_000), 4)]
        vaults = _draw("adjective, noun", 4, rng)
        facts = [
            f"The secret passcode of the {vault} vault is {code}."
            for vault, code in zip(vaults, codes, strict=True)
        ]
        question = f"What is the secret passcode of the {vaults[0]} vault?"
        return question, codes[0], facts[:1], facts[1:]
    people = _draw("first name, last name", 2, rng)
    things, cities = _draw("noun", 2, rng), _draw("city", 2, rng)
    facts = [
        fact
        for person, thing, city in zip(people, things, cities, strict=True)
        for fact in (
            f"The {thing} manuscript was given to {person} by the society.",
            f"{person} has lived in {city} since the winter.",
        )
    ]
    question = f"In which city does the person live who was given the {things[0]} manuscript?"
    return question, cities[0], facts[:2], facts[2:]


def _draw(kinds: str, count: int, rng: random.Random) -> list[str]:
    """Different words of a kind, or of kinds joined by commas."""
    drawn = [rng.sample(_WORDS[kind], count) for kind in kinds.split(", ")]
    return [" ".join(words) for words in zip(*drawn, strict=True)]


def _hide(fact: str, page: Page, rng: random.Random) -> Page:
    """Put a sentence between two of a page's, or at one of its ends."""
    sentences = _SENTENCE_END.split(page.text)
    sentences.insert(rng.randrange(len(sentences) + 1), fact)
    return replace(page, text=" ".join(sentences))


def _shuffled(items: Sequence[T], rng: random.Random) -> list[T]:
    return rng.sample(items, len(items))


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
