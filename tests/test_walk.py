"""The README's commands and its example, in a clone and environments that are new.

The notebooks are run there as well, by tests/test_notebooks.py.
"""

import pytest

from tests.walk import DOOR_CODE

pytestmark = [pytest.mark.slow, pytest.mark.model]


def test_the_two_commands_make_all_they_need_and_answer(walk):
    demo, tests = walk.try_it()
    assert DOOR_CODE in demo
    assert " passed" in tests


def test_the_commands_for_a_project_of_ones_own_answer(walk):
    assert DOOR_CODE in walk.installed[-1]


def test_the_first_example_answers(walk):
    assert walk.installed
    kept, source, *answer = walk.example().splitlines()
    assert kept == "17,316 tokens, 2,048 kept"
    assert source.endswith("04-laboratory.md")
    assert DOOR_CODE in " ".join(answer)
