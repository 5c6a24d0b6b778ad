"""How much is tried: a sample in `make test`, everything in `make fuzz`."""

import os
import random

import pytest

LONG = os.environ.get("FINCH_FUZZ") == "long"


@pytest.fixture
def rng(request):
    """The same numbers in every run."""
    return random.Random(request.node.name)


def amount(long, short):
    """How many cases to try."""
    return long if LONG else short
