"""A tiny model in a folder, for the command line."""

import pytest

from tests.tiny import make_model, make_tokenizer


@pytest.fixture(autouse=True)
def quiet_transformers():
    """The command silences transformers; leave it for later tests as it was."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    yield
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


@pytest.fixture
def model_folder(tmp_path):
    path = tmp_path / "model"
    make_model().save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return str(path)
