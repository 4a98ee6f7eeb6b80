"""One text in the tokens of several bases: the corpus of each, and held-out documents that all of them read."""

from collections.abc import Mapping, Sequence

from raysplit.corpus.corpus import Corpus, HeldOutDocuments
from raysplit.space import Space


def corpora_of(space: Space, corpus: Corpus) -> dict[int, Corpus]:
    """n_params -> the corpus in the tokens of that base; for a space whose losses are in bits a byte.

    Raises:
        CorpusError: as `Corpus.in_tokens_of`.
    """
    tokenizers = {n_params: space.tokenizer_of(n_params) for n_params in space.model.sizes}
    distinct = {tokenizer.name: tokenizer for tokenizer in tokenizers.values()}
    found = {name: corpus.in_tokens_of(tokenizer) for name, tokenizer in distinct.items()}
    return {n_params: found[tokenizer.name] for n_params, tokenizer in tokenizers.items()}


def corpus_of(space: Space, corpus: Corpus, n_params: int) -> Corpus:
    """The corpus that models of a size are trained on.

    Raises:
        CorpusError: as `Corpus.in_tokens_of`.
    """
    return corpus.in_tokens_of(space.tokenizer_of(n_params)) if space.counts_bytes else corpus


def every_corpus(space: Space, corpus: Corpus) -> list[Corpus]:
    """The corpora that models of the space are trained on, each once.

    Raises:
        CorpusError: as `Corpus.in_tokens_of`.
    """
    if not space.counts_bytes:
        return [corpus]
    return list({own.folder: own for own in corpora_of(space, corpus).values()}.values())


def shared_held_out(
    corpora: Mapping[int, Corpus], names: Sequence[str], *, context_length: int, max_tokens: int
) -> dict[int, dict[str, HeldOutDocuments]]:
    """n_params -> name -> the held-out text of a size: for all sizes the same documents.

    These are the first ones that have at most ``max_tokens`` tokens by every tokenizer.

    Args:
        corpora: as of `corpora_of`.
        names: of domains, and of the general set.
        context_length: T.
        max_tokens: of each name.

    Raises:
        CorpusError: a domain's first held-out document has more tokens, or the bytes of documents are not known.
    """
    found: dict[int, dict[str, HeldOutDocuments]] = {n_params: {} for n_params in corpora}
    for name in names if corpora else ():
        n_documents = min(one.n_held_out_within(name, max_tokens=max_tokens) for one in corpora.values())
        for n_params, one in corpora.items():
            found[n_params][name] = one.held_out_text(
                name, context_length=context_length, n_documents=n_documents, max_tokens=max_tokens
            )
    return found
