"""What `benchmarks.price` measures adds up."""

import argparse
import time

import pytest
import torch

from benchmarks.meter import Meter
from benchmarks.price import CELLS
from benchmarks.price_work import HOW, MANY, measure

OPTIONS = argparse.Namespace(shape=None, device="cpu", dtype="bfloat16", target=96)


def work(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


class Slow(torch.nn.Module):
    def forward(self, seconds):
        work(seconds)
        return seconds


def test_parts_and_the_models_share_of_them_are_added_up():
    model = Slow()
    meter = Meter(model, torch.device("cpu"))
    for _ in range(2):
        with meter.part("all"):
            work(0.02)
            model(0.03)
    assert meter.seconds["all"] >= 0.1
    assert 0.06 <= meter.seconds["model"] <= meter.seconds["all"] - 0.04
    meter.reset()
    assert meter.seconds == {}


@pytest.mark.model
def test_choosing_and_encoding_are_all_of_a_question():
    first = measure("first", "cascade", 700, OPTIONS)
    assert first["seconds"] == pytest.approx(
        first["choosing_seconds"] + first["encoding_seconds"], rel=0.05, abs=0.02
    )
    assert 0 < first["model_seconds"] < first["seconds"]
    assert 0 < first["read_tokens"] <= max(3 * 96, 700 * 3 // 8) < first["tokens"]


@pytest.mark.model
def test_eight_questions_at_once_read_everything_once_and_apart_each_for_itself():
    many, apart = (measure(kind, "everything", 300, OPTIONS) for kind in ("many", "apart"))
    assert many["read_tokens"] == apart["read_tokens"] == pytest.approx(300, abs=40)
    assert many["choosing_seconds"] < apart["choosing_seconds"]


def test_every_length_has_a_first_question_that_the_others_are_compared_with():
    for cells in CELLS.values():
        assert len(cells) == len(set(cells))
        for _, how in cells:
            assert not how or ("first", how) in cells
            assert how in ("", *HOW)
    assert MANY == 8
