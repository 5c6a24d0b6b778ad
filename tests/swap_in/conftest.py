"""Evidence switched off."""

import pytest

from finch_integrations import configure_evidence


@pytest.fixture
def without_evidence():
    configure_evidence(max_bytes=0)
    yield
    configure_evidence()
