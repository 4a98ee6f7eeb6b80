"""What a run's law rests on beside its journal: the question, the model family, and its corpus where it has one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from raysplit.corpus import Corpus
from raysplit.design.setup import Setup, setup_of
from raysplit.journal import Record, has_journal, read_journal
from raysplit.space import Space
from raysplit.sweep.folder import RunFolder


@dataclass(frozen=True, slots=True)
class FamilyShapes:
    """The model family's size nearest to an asked N, non-embedding, and its FLOPs per training token."""

    space: Space
    vocab_size: int

    def __call__(self, n_params: int) -> tuple[int, float]:
        shape = self.space.shape(n_params, self.vocab_size)
        return shape.n_params_non_embedding, float(shape.flops_per_token)


@dataclass(frozen=True, kw_only=True, slots=True)
class Basis:
    """What opens a run's law service together with its journal."""

    setup: Setup
    bytes_per_token: Mapping[str, float]
    """Of each domain's held-out text; NaN where there is none."""
    shapes: FamilyShapes


def basis_of_corpus(space: Space, corpus: Corpus) -> Basis:
    """Of a sweep, on a corpus that can feed it.

    Raises:
        CorpusError: a domain has too few tokens for the grids.
        SplitError: the target's budget is too small for any split.
    """
    longest_path_epochs(space, corpus)
    tokens = {name: float(record.train.n_tokens) for name, record in corpus.manifest.domains.items()}
    return Basis(
        setup=setup_of(space, vocab_size=corpus.vocab_size, domain_tokens=tokens),
        bytes_per_token=bytes_per_token(corpus),
        shapes=FamilyShapes(space, corpus.vocab_size),
    )


def basis_of_space(space: Space) -> Basis:
    """Of a law that only hears what others measure, and so needs no corpus.

    Raises:
        SplitError: the target's budget is too small for any split.
    """
    vocab_size = space.corpus.tokenizer.vocab_size
    return Basis(
        setup=setup_of(space, vocab_size=vocab_size),
        bytes_per_token=dict.fromkeys(space.domains, float("nan")),
        shapes=FamilyShapes(space, vocab_size),
    )


def basis_of_run(folder: RunFolder, space: Space, records: Iterable[Record]) -> Basis:
    """Of the run whose journal these records are. A law that is served alone has neither corpus nor rounds.

    Raises:
        CorpusError: the corpus of a sweep is not there.
    """
    if folder.corpus.exists() or any(record.kind == "round" for record in records):
        return basis_of_corpus(space, Corpus.open(folder.corpus))
    return basis_of_space(space)


def recorded(folder: RunFolder) -> list[Record]:
    """Every record of a run's journal; none where it has not begun."""
    return read_journal(folder.journal) if has_journal(folder.journal) else []


def bytes_per_token(corpus: Corpus) -> dict[str, float]:
    """Of each domain's held-out text."""
    return {name: corpus.bytes_per_token(name) for name in corpus.domains}


def held_out_tokens(space: Space, corpus: Corpus, domain: str) -> int:
    """Held-out tokens of a domain that are read at every measured point.

    Raises:
        CorpusError: they are less than one context.
    """
    context = space.model.context_length
    wanted = space.training.validation_tokens
    return context * corpus.n_validation_windows(domain, context_length=context, max_tokens=wanted)


def longest_path_epochs(space: Space, corpus: Corpus) -> dict[str, float]:
    """How often the grids' longest path through trunk and branch reads each domain.

    Raises:
        CorpusError: more often than the space allows, or too little is held out to measure a loss.
    """
    for domain in corpus.domains:
        held_out_tokens(space, corpus, domain)
    return corpus.check_capacity(
        max_pretrain_tokens=max(space.pretrain_grid),
        max_specialize_tokens=max(space.specialize_grid),
        max_epochs=space.corpus.max_epochs,
        context_length=space.model.context_length,
        replay_share=space.training.replay_share,
    )
