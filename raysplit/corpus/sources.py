"""Documents of one domain, read one by one from files, tables, Hugging Face datasets or package texts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from raysplit.corpus.listing import list_files, matches
from raysplit.corpus.not_read import Tally
from raysplit.corpus.packages import package_documents
from raysplit.corpus.plain_text import cut, lines_of, text_lines, whole_text
from raysplit.corpus.rows import TABLE_FORMATS, Row, check_columns, flag_in, rows_of, text_in
from raysplit.corpus.runs import data_key, document_key
from raysplit.corpus.tokenized import COMPANIONS, TOKEN_SUFFIXES, Vocabulary, token_documents, token_suffix
from raysplit.corpus.tokenizer import STORED_TOKENS
from raysplit.errors import CorpusError, Unreadable, unknown
from raysplit.files import suffix_of
from raysplit.space import SourceSpec

_PIECE_CHARACTERS = 8000
_ABOUT_DATASETS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Files that the library `datasets` writes beside the rows."""
_TEXT_TYPES = ("string", "large_string", "string_view", "binary", "large_binary", "null")
"""Types of the library's columns that are read as text."""


class Document(NamedTuple):
    """A text, and whether its source holds it out."""

    text: str
    is_held_out: bool | None = None
    """None where the source does not say."""

    @property
    def is_blank(self) -> bool:
        return not self.text or self.text.isspace()

    def data(self) -> bytes:
        return self.text.encode("utf-8", errors="replace")  # JSON can spell half of a surrogate pair

    def key(self, *, seed: int) -> bytes:
        return document_key(self.text, seed=seed)


class TokenDocument(NamedTuple):
    """A text that is tokenized already."""

    tokens: np.ndarray
    """(n,) uint32, without the end of text."""
    is_held_out: bool | None = None

    def data(self) -> bytes:
        return self.tokens.astype(STORED_TOKENS).tobytes()

    def key(self, *, seed: int) -> bytes:
        return data_key(b"tokens\0" + self.data(), seed=seed)


class SourcePart(NamedTuple):
    """Files of a source that are read together."""

    paths: tuple[Path, ...] = ()
    """Empty for a package or a dataset, which is one part without files."""
    n_bytes: int = 0
    """Size of the files, as they lie on the disk."""


@dataclass(frozen=True)
class Documents:
    """The documents of a source, which are read as they are asked for, and what was not read so far."""

    documents: Iterator[Document | TokenDocument]
    tally: Tally
    paths: tuple[Path, ...] = ()
    """The files that are read, in this order; empty for a package or a dataset."""

    def __iter__(self) -> Iterator[str]:
        """The texts, of a source that gives text."""
        return (document.text for document in self.documents if isinstance(document, Document))


def open_source(
    source: SourceSpec, *, domain: str, part: SourcePart | None = None, vocabulary: Vocabulary | None = None
) -> Documents:
    """Check that the source is there and has what is asked of it, then give its documents, blank ones left out.

    The checks are made at once; the documents are read as the iterator is consumed. Whoever has consumed it asks the
    tally whether too much was bad.

    Args:
        source: what to read.
        domain: the domain that it belongs to.
        part: one of `parts_of` the source: it alone is read, without the checks that need the whole source.
        vocabulary: of the corpus's tokenizer, against which the tokens of a source of tokens are checked.

    Raises:
        CorpusError: nothing is there, a column or a label is unknown, or a file cannot be read. Problems deep inside a
            file, and a label that no row has, show while reading.
    """
    tally = Tally(source, domain=domain)
    try:
        if source.kind == "tokens":
            return _tokens(source, tally, vocabulary, part=part)
        texts, paths = _opened(source, tally, domain=domain, part=part)
    except OSError as error:  # of a folder on the way; what is below it is counted
        raise CorpusError(f"{tally.where[:1000]}: cannot be read: {error.strerror or error}") from error
    if source.label_column is not None and part is None:
        texts = _labels_checked(texts, source, tally, domain=domain)
    return Documents(_not_blank(texts, tally), tally, paths)


def _tokens(source: SourceSpec, tally: Tally, vocabulary: Vocabulary | None, *, part: SourcePart | None) -> Documents:
    if vocabulary is None:
        raise CorpusError(f"{tally.where}: holds tokens, where text is needed")
    paths = _token_files(source, tally) if part is None else list(part.paths)
    documents = map(TokenDocument, token_documents(paths, source, vocabulary, tally))
    return Documents(documents, tally, tuple(paths))


def _token_files(source: SourceSpec, tally: Tally) -> list[Path]:
    root = Path(str(source.path))
    if root.suffix == ".idx" or (not root.exists() and root.with_name(root.name + ".bin").is_file()):
        root = root.with_suffix(".bin") if root.suffix == ".idx" else root.with_name(root.name + ".bin")
    found = list_files(root, lambda path: token_suffix(path) in (*TOKEN_SUFFIXES, *COMPANIONS), tally)
    paths = [path for path in found if token_suffix(path) in TOKEN_SUFFIXES]
    if unfit := [path for path in found if token_suffix(path) not in (*TOKEN_SUFFIXES, *COMPANIONS)]:
        raise CorpusError(f"{tally.where}: {unknown('format of tokens', unfit[0].suffix, TOKEN_SUFFIXES)}")
    if not paths:
        raise CorpusError(f"{tally.where}: holds no file of tokens ({', '.join(TOKEN_SUFFIXES)})")
    tally.n_files -= len(found) - len(paths)
    return paths


def parts_of(paths: Sequence[Path], *, part_bytes: int) -> list[SourcePart]:
    """The files of a source, in their order, in parts of at least ``part_bytes`` on the disk; the last may be smaller.

    A source without files is one part.
    """
    parts: list[SourcePart] = []
    group: list[Path] = []
    n_bytes = 0
    for path in paths:
        group.append(path)
        n_bytes += path.stat().st_size
        if n_bytes >= part_bytes:
            parts.append(SourcePart(tuple(group), n_bytes))
            group, n_bytes = [], 0
    return [*parts, SourcePart(tuple(group), n_bytes)] if group or not parts else parts


def check_labels(tally: Tally, source: SourceSpec, *, domain: str) -> None:
    """Check that a row of the source carries its label; labels that differ from it in case alone are remarked on.

    Raises:
        CorpusError: no row does.
    """
    label = _label(source, domain)
    if label not in tally.labels:
        known = list(islice(sorted(tally.labels), 20))
        raise CorpusError(f"{tally.where}: column {source.label_column!r}: {unknown('label', label, known)}")
    for other in sorted(tally.labels):
        if other != label and other.casefold() == label.casefold():
            tally.remark(f"left out {tally.labels[other]} rows with the label {other!r}, which is not {label!r}")


def _label(source: SourceSpec, domain: str) -> str:
    return (source.label or domain).strip()


def _labels_checked(
    documents: Iterator[Document], source: SourceSpec, tally: Tally, *, domain: str
) -> Iterator[Document]:
    yield from documents
    check_labels(tally, source, domain=domain)


def _opened(
    source: SourceSpec, tally: Tally, *, domain: str, part: SourcePart | None
) -> tuple[Iterator[Document], tuple[Path, ...]]:
    """The documents, and the files they come from."""
    if source.kind == "package":
        assert source.package is not None
        documents = package_documents(source.package)
        return (Document(piece) for text in documents for piece in _cut(text, source.split_on)), ()
    if source.kind == "files":
        paths = _files(source, tally) if part is None else list(part.paths)
        # One file holds many texts; as a single document it could not be split into training and held-out text.
        split_on = source.split_on or (_PIECE_CHARACTERS if paths == [Path(str(source.path))] else None)
        return map(Document, _texts(paths, source.encoding, split_on, tally)), tuple(paths)
    label = _label(source, domain)
    if source.kind == "huggingface":
        return _texts_of(_huggingface(source, tally, label=label), source, tally, label=label), ()
    tables = _tables(_table_paths(source, tally) if part is None else part.paths, source, tally)
    if part is None:
        tally.check()
    texts = _texts_of(_rows(tables, tally), source, tally, label=label)
    return texts, tuple(path for path, _ in tables)


def _not_blank(documents: Iterator[Document], tally: Tally) -> Iterator[Document]:
    for document in documents:
        if document.is_blank:
            tally.n_blank += 1
        else:
            yield document


def _files(source: SourceSpec, tally: Tally) -> list[Path]:
    root = Path(str(source.path))
    paths = list_files(root, lambda relative: matches(relative, source.pattern), tally)
    if not paths:
        instead = f"{_found_instead(tally)}; set `pattern`, such as '**/*.md', or '**/*' for every file"
        raise CorpusError(f"{tally.where}: no file matches {source.pattern!r}{instead}")
    if (tables := [path for path in paths if suffix_of(path) in TABLE_FORMATS]) and source.split_on is None:
        if paths == [root]:
            raise CorpusError(
                f"{tally.where}: is a table, whose rows are read with `kind: table`; to take it for plain text, set "
                "`split_on`"
            )
        tally.remark(
            f"took {len(tables)} of {len(paths)} files for plain text that are tables, such as "
            f"{tally.name(tables[0])}; `kind: table` reads their rows"
        )
    return paths


def _texts(paths: list[Path], encoding: str | None, split_on: int | str | None, tally: Tally) -> Iterator[str]:
    for path in paths:
        try:
            if split_on is None:
                yield whole_text(path, encoding)
            else:
                yield from cut(_counted(text_lines(path, encoding, _bad_rows(path, tally)), tally), split_on)
        except Unreadable as error:
            tally.bad_file(path, error)


def _cut(text: str, split_on: int | str | None) -> Iterable[str]:
    return [text] if split_on is None else cut(lines_of(text.replace("\r\n", "\n")), split_on)


def _counted(lines: Iterator[str], tally: Tally) -> Iterator[str]:
    for line in lines:
        tally.n_rows += 1
        yield line


def _bad_rows(path: Path, tally: Tally) -> Callable[[str, str], None]:
    def bad(place: str, why: str) -> None:
        tally.n_rows += 1
        tally.bad_row(path, place, why)

    return bad


def _table_paths(source: SourceSpec, tally: Tally) -> list[Path]:
    root = Path(str(source.path))
    _is_not_saved(root, tally)
    paths = list_files(root, _is_table, tally)
    if not paths:
        for folder in filter(Path.is_dir, root.glob("*")):
            _is_not_saved(folder, tally)
        raise CorpusError(f"{tally.where}: holds no table ({', '.join(TABLE_FORMATS)}){_found_instead(tally)}")
    for path in paths:
        if suffix_of(path) not in TABLE_FORMATS:
            raise CorpusError(f"{tally.where}: {path.name}: {unknown('table format', suffix_of(path), TABLE_FORMATS)}")
    return paths


def _tables(paths: Sequence[Path], source: SourceSpec, tally: Tally) -> list[tuple[Path, Iterator[Row]]]:
    """The tables that can be opened, with their rows, which are read later."""
    wanted = _columns(source)
    tables = []
    for path in paths:
        try:
            tables.append((path, rows_of(path, wanted, encoding=source.encoding, bad=_bad_rows(path, tally))))
        except Unreadable as error:
            tally.bad_file(path, error)
    return tables


def _columns(source: SourceSpec) -> list[str]:
    return [source.text_column, *filter(None, [source.label_column, source.held_out_column])]


def _rows(tables: list[tuple[Path, Iterator[Row]]], tally: Tally) -> Iterator[tuple[Path, Row]]:
    for path, rows in tables:
        n_before = tally.n_rows
        try:
            yield from ((path, row) for row in rows)
        except Unreadable as error:
            tally.bad_file(path, error)
        else:
            tally.n_blank += tally.n_rows == n_before  # a table without rows


def _is_table(relative: Path) -> bool:
    return suffix_of(relative) in TABLE_FORMATS and relative.name not in _ABOUT_DATASETS


def _is_not_saved(folder: Path, tally: Tally) -> None:
    if _saved_by_datasets(folder):
        raise CorpusError(
            f"{tally.where}: {folder.name} is a dataset of `save_to_disk`; read it with `kind: huggingface`"
        )


def _saved_by_datasets(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def _found_instead(tally: Tally) -> str:
    return "".join(f"; {sentence}" for sentence in tally.so_far().sentences())


def _huggingface(source: SourceSpec, tally: Tally, *, label: str) -> Iterator[tuple[Path, Row]]:
    import datasets

    assert source.path is not None
    path = Path(source.path)
    if path.is_file():
        raise CorpusError(f"{tally.where}: is a file; read it with `kind: table` or `kind: files`")
    is_saved = _saved_by_datasets(path)
    if is_saved and source.config_name is not None:
        raise CorpusError(f"{tally.where}: is a dataset of `save_to_disk`, which has no config_name; leave it out")
    try:
        if is_saved:
            dataset = datasets.load_from_disk(source.path)
        else:
            dataset = datasets.load_dataset(
                source.path, name=source.config_name, split=source.split, streaming=source.streaming
            )
    except Exception as error:  # the loader and the hub raise many kinds
        call = "load_from_disk" if is_saved else "load_dataset"
        whole = "; save it again unless files are missing from a copy" if is_saved else ""
        raise CorpusError(f"{tally.where}: datasets.{call} failed: {error}{whole}") from error
    if isinstance(dataset, datasets.DatasetDict):
        if source.split not in dataset:
            raise CorpusError(f"{tally.where}: {unknown('split', source.split, dataset)}")
        dataset = dataset[source.split]
    elif is_saved and source.split != SourceSpec.model_fields["split"].default:
        raise CorpusError(f"{tally.where}: is one dataset without splits; leave out split = {source.split!r}")
    columns = dataset.column_names or list(next(iter(dataset.take(1)), {}))  # a stream may not know its columns
    wanted = _columns(source)
    try:
        check_columns(columns, wanted)
    except Unreadable as error:
        raise CorpusError(f"{tally.where}: {error}") from error
    features = dataset.features or {}  # a stream may not know them either
    kind = features.get(source.text_column)
    if kind is not None and getattr(kind, "dtype", "") not in _TEXT_TYPES:
        raise CorpusError(f"{tally.where}: column {source.text_column!r} holds {kind}, not text; set `text_column`")
    names = getattr(features.get(source.label_column), "names", [])  # of a ClassLabel, whose rows hold numbers
    rows = iter(dataset.select_columns(wanted))
    return _explained(
        _named(rows, str(source.label_column), names) if names and not label.isdecimal() else rows, path, tally
    )


def _named(rows: Iterator[Any], column: str, names: Sequence[str]) -> Iterator[Any]:
    for row in rows:
        number = row[column]
        yield {**row, column: names[number] if number is not None and number >= 0 else None}


def _explained(rows: Iterator[Any], path: Path, tally: Tally) -> Iterator[tuple[Path, Row]]:
    try:
        yield from ((path, (f"row {number}", row)) for number, row in enumerate(rows, start=1))
    except Exception as error:  # a stream can fail in the middle
        raise CorpusError(f"{tally.where}: reading failed: {error}") from error


def _texts_of(rows: Iterator[tuple[Path, Row]], source: SourceSpec, tally: Tally, *, label: str) -> Iterator[Document]:
    """Texts of the rows that carry ``label``, or of all of them when the source has no label column."""
    for path, (place, row) in rows:
        tally.n_rows += 1
        if source.label_column is not None:
            value = str(row.get(source.label_column)).strip()
            tally.labels[value] = tally.labels.get(value, 0) + 1
            if value != label:
                continue
        try:
            held_out = flag_in(row, source.held_out_column) if source.held_out_column else None
            for piece in _cut(text_in(row, source.text_column), source.split_on):
                yield Document(piece, held_out)
        except Unreadable as error:
            tally.bad_row(path, place, error)
