"""Prompts whose documents were missed are reported once for every shape."""

import logging

from finch_integrations.pipeline.misses import MISSED, Shapes, report_miss

LONG = "Answer from the following notes, and only from them:\n\n" + "The boat is blue. " * 20


def report(texts, tokens=101, target=100):
    report_miss(texts, lambda: tokens, target, "Say where.")


def test_a_shape_is_reported_once(caplog):
    for question in ("Where?", "When?"):
        report([f"{LONG}\n\nQuestion: {question}"])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "prompt of about 101 tokens" in record.message
    assert "target_size is 100). Say where." in record.message


def test_another_shape_is_reported_too(caplog):
    report([LONG])
    report(["Summarise: " + LONG])
    report(["Hello", LONG])
    assert len(caplog.records) == 2


def test_what_fits_the_budget_is_neither_reported_nor_remembered(caplog):
    report([LONG], tokens=100)
    assert not caplog.records
    report([LONG], tokens=101)
    assert len(caplog.records) == 1


def test_short_texts_are_not_counted():
    report_miss(["é" * 50], lambda: 1 / 0, 100, "")
    report_miss(["x" * 2048], lambda: 1 / 0, None, "")


def test_the_memory_of_shapes_is_bounded_and_forgets_the_oldest():
    shapes = Shapes(max_shapes=3)
    assert all(shapes.is_new([str(n)]) for n in range(10_000))
    assert len(shapes) == 3
    assert not shapes.is_new(["9999"])
    assert not shapes.is_new(["9997"])
    assert shapes.is_new(["new"])
    assert shapes.is_new(["9998"])  # 9997 was asked for later


def test_other_tests_leave_no_shapes_behind():
    assert len(MISSED) == 0
