"""What a new run's law rests on, from its search space and its corpus; later on the journal holds it."""

from collections.abc import Sequence
from pathlib import Path

from raysplit.corpus import Corpus
from raysplit.corpus.by_base import corpora_of, every_corpus, shared_held_out
from raysplit.design.resolved_spec import spec_of
from raysplit.journal import Record, has_journal, read_journal
from raysplit.live.run_spec import ModelFamily, RunSpec, recorded_spec
from raysplit.run_folder.folder import RunFolder, existing_run
from raysplit.space import Space


def run_spec_of_space(space: Space, corpus: Corpus | None = None) -> RunSpec:
    """The specification of a sweep on a corpus; without one, of a law that only hears what others measure.

    Raises:
        CorpusError: a domain has too few tokens for the grids.
        SplitError: the target contradicts itself, or its budget is too small for any split.
    """
    vocab_size, tokens, of_bases = space.corpus.tokenizer.vocab_size, None, None
    per_token = dict.fromkeys(space.domains, float("nan"))
    if corpus is not None:
        longest_path_epochs(space, corpus)
        vocab_size, per_token = corpus.vocab_size, bytes_per_token(corpus)
        tokens = corpus.domain_tokens
        if space.counts_bytes:
            of_bases = {n_params: own.domain_tokens for n_params, own in corpora_of(space, corpus).items()}
    return RunSpec(
        spec=spec_of(space, vocab_size=vocab_size, domain_tokens=tokens, base_tokens=of_bases),
        bytes_per_token=per_token,
        # From bases no other size can be asked for.
        family=None
        if space.model.checkpoints
        else ModelFamily(vocab_size=vocab_size, context_length=space.model.context_length),
    )


def run_spec_of(folder: RunFolder, records: Sequence[Record]) -> RunSpec:
    """The specification of a run: by its journal's records, or by its folder where they are of an older raysplit.

    A law that is served alone has neither corpus nor rounds.

    Raises:
        RunError: the folder holds no run.
        CorpusError: the corpus of a sweep is not there.
    """
    if (data := recorded_spec(records)) is not None:
        return RunSpec.of_data(data)
    _, space = existing_run(folder.path)
    has_corpus = folder.corpus.exists() or any(record.kind == "round" for record in records)
    return run_spec_of_space(space, Corpus.open(folder.corpus) if has_corpus else None)


def recorded(journal: str | Path) -> list[Record]:
    """Every record of a journal; empty where the journal was not begun."""
    return read_journal(journal) if has_journal(journal) else []


def bytes_per_token(corpus: Corpus) -> dict[str, float]:
    """Bytes a token of the held-out text of each domain, and of the general set."""
    return {name: corpus.bytes_per_token(name) for name in corpus.manifest.texts}


def held_out_tokens(space: Space, corpus: Corpus, domain: str) -> int:
    """Held-out tokens of a domain that are read at every measured point: the fewest of any base.

    Raises:
        CorpusError: they are fewer than one context, or its first document has too many.
    """
    if space.counts_bytes:
        texts = shared_held_out(
            corpora_of(space, corpus), [domain], context_length=space.model.context_length,
            max_tokens=space.training.validation_tokens,
        )  # fmt: skip
        return min(own[domain].n_targets for own in texts.values())
    context = space.model.context_length
    wanted = space.training.validation_tokens
    return context * corpus.n_validation_windows(domain, context_length=context, max_tokens=wanted)


def longest_path_epochs(space: Space, corpus: Corpus) -> dict[str, float]:
    """Epochs of each domain, and of the general set, on the grids' longest path through trunk and branch.

    Raises:
        CorpusError: they are more than the space allows, or too little is held out to measure a loss.
    """
    for name in corpus.manifest.texts:
        held_out_tokens(space, corpus, name)
    shares = space.sweep.replay_shares or (space.training.replay_share,)
    found: dict[str, float] = {}
    for own in every_corpus(space, corpus):
        for share in {min(shares), max(shares)}:  # of which one takes most of a domain, one of a general set
            epochs = own.check_capacity(
                max_pretrain_tokens=space.most_mixture_tokens,
                max_specialize_tokens=max(space.specialize_grid),
                max_epochs=space.corpus.max_epochs,
                context_length=space.model.context_length,
                replay_share=share,
            )
            found = {name: max(found.get(name, 0.0), n) for name, n in epochs.items()}
    return found
