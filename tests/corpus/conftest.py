"""One small corpus for all the tests that only read it."""

import pytest

from raysplit.corpus import Corpus
from tests.corpus.texts import small_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Three unequal domains, uneven shares, and shards so small that windows cross from file to file."""
    return small_corpus(
        tmp_path_factory.mktemp("corpus"),
        n_documents={"alpha": 60, "beta": 90, "gamma": 40},
        mixture={"alpha": 0.5, "beta": 0.3, "gamma": 0.2},
        shard_bytes=1000,
    )
