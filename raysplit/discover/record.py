"""What a discovery found, as its folder keeps it."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from raysplit.errors import CorpusError
from raysplit.space import CorpusSpec, DiscoverSpec

DISCOVERY_FILE = "discovery.json"
CLUSTERS_FILE = "clusters.json"
DOCUMENTS_FILE = "documents.parquet"
TOKENIZER_FOLDER = "tokenizer"
HELD_OUT_COLUMN = "held_out"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DiscoveredSide(_Record):
    n_documents: int
    n_text_bytes: int


class Cluster(_Record):
    """One discovered domain."""

    name: str
    terms: tuple[str, ...]
    """Words that tell it from the others, the most telling first."""
    train: DiscoveredSide
    validation: DiscoveredSide
    from_sources: dict[str, int]
    """Number of documents from each source."""
    licence: str | None
    """Licences of all its sources; None where one is not known."""
    samples: tuple[str, ...]
    """Beginnings of the documents of the sample that are nearest to its centre."""

    @property
    def n_text_bytes(self) -> int:
        return self.train.n_text_bytes + self.validation.n_text_bytes

    @property
    def n_documents(self) -> int:
        return self.train.n_documents + self.validation.n_documents


class Agreement(_Record):
    """How well clusters agree with the sources' names, which clustering does not see; see `terms.agreement`."""

    nmi: float
    """Normalized mutual information, in [0, 1]."""
    purity: float
    """Share of documents whose source is the most frequent one of their cluster."""


class Clusters(_Record):
    """A corpus in K clusters; the one with most bytes in the sample comes first."""

    clusters: tuple[Cluster, ...]
    evenness_fitted: float
    """Bytes of the largest cluster as a multiple of an equal share, in the sample."""
    evenness: float
    """The same over all documents."""
    agreement: Agreement | None
    """Over all documents; None where there is one source."""
    agreement_held_out: Agreement | None

    @property
    def k(self) -> int:
        return len(self.clusters)


class Discovery(_Record):
    """A finished discovery."""

    schema_version: Literal[1] = 1
    corpus: CorpusSpec
    """As it was asked for, but for `max_epochs`, which changes no cluster."""
    settings: DiscoverSpec
    ks: tuple[int, ...]
    editions: tuple[str, ...]
    """Editions of package texts."""
    n_documents: int
    n_duplicates: int
    n_sample_documents: int
    notes: tuple[str, ...]
    """Sentences on what was not read."""


def clusters_folder(out: Path, k: int) -> Path:
    """Folder of one number of clusters in a discovery's folder ``out``."""
    return out / label_column(k)


def label_column(k: int) -> str:
    """Column of the table of documents that names the cluster of each."""
    return f"k{k}"


def read_discovery(out: Path) -> Discovery | None:
    """The record of a finished discovery; None where there is none.

    Raises:
        CorpusError: it is damaged.
    """
    path = out / DISCOVERY_FILE
    if not path.exists():
        return None
    try:
        return Discovery.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise CorpusError(f"{path}: is damaged or of another version of raysplit; delete {out}") from error


def read_clusters(out: Path, k: int) -> Clusters:
    """What a discovery found for one K.

    Raises:
        CorpusError: it is missing or damaged.
    """
    path = clusters_folder(out, k) / CLUSTERS_FILE
    try:
        return Clusters.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}; delete {out} and discover again") from error
    except ValidationError as error:
        raise CorpusError(f"{path}: is damaged or of another version of raysplit; delete {out}") from error
