"""The one way to a corpus: sources in, windows with their splits out."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.random import default_rng
from transformers import PreTrainedTokenizerBase

from sae.corpus.clusters import Clusters, cluster_documents
from sae.corpus.document import Document
from sae.corpus.files import file_documents
from sae.corpus.generated import generated_documents
from sae.corpus.local import LocalTexts, local_documents
from sae.corpus.splits import Splits, split_windows
from sae.corpus.windows import SHORTEST, Windows, cut_windows
from sae.errors import UserError, nearest

DEFAULT = ("local", "generated")
"""Sources that need no network and no file; any other name is a path or a glob."""
_WEIGHTS = {"local": 3, "generated": 2, "files": 3}
"""Characters that a source gives for each that the others give, as long as it lasts."""
_BYTES_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class SourceCount:
    """What one source gave."""

    source: str
    """``local``, ``generated`` or ``files``."""
    documents: int
    """Documents."""
    tokens: int
    """Tokens that count."""


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Documents, their windows and the splits."""

    documents: tuple[Document, ...]
    """In the order in which they were taken, sources interleaved."""
    windows: Windows
    """Their windows, document by document."""
    clusters: Clusters
    """Near-duplicate documents."""
    splits: Splits
    """The split of every window."""
    digest: str
    """SHA-256 over the documents' ids and texts, hexadecimal."""
    sources: tuple[SourceCount, ...]
    """What each source gave, in the order asked for."""
    notes: tuple[str, ...]
    """For people: what is missing, and that the corpus is smaller than asked for."""


def load_corpus(
    spec: Sequence[str],
    text_column: str,
    tokens: int,
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    seed: int,
) -> Corpus:
    """Take documents until `tokens` tokens count, cut them into windows of `context` positions, and split them.

    `spec` names sources: ``local``, ``generated``, and paths or globs of files, whose text is in `text_column`. They
    are interleaved by characters, 3 of local and 3 of files to 2 of generated text. Local documents come in an order
    drawn from `seed`, from which the generated ones are made too; files in the order of their paths. The last
    document is taken whole. Fewer tokens than asked for are noted. Raises `UserError` where nothing is found, near-
    duplicates make up too much, or a split stays empty.
    """
    local = _local(spec)
    streams = _streams(spec, text_column, tokens, seed, local)
    documents, windows = _fill(_interleave(streams), tokens, tokenizer, context)
    if not len(windows):
        raise UserError(
            f"The corpus {' '.join(spec)} has too little text.",
            f"None of its {len(documents)} documents makes a window of {SHORTEST} tokens.",
            "Give files with more text, or the sources local and generated.",
        )
    clusters = cluster_documents(documents, windows)
    splits = split_windows(windows, documents, clusters)
    counts = tuple(_count(name, documents, windows) for name in streams)
    return Corpus(
        tuple(documents), windows, clusters, splits, _digest(documents), counts, _notes(local, windows, tokens)
    )


def load_documents(spec: Sequence[str], text_column: str, characters: int, seed: int) -> list[Document]:
    """The documents of `load_corpus`, in its order, until they hold `characters`: what a tokenizer is trained on.

    Raises `UserError` where nothing is found.
    """
    documents, held = list[Document](), 0
    for document in _interleave(_streams(spec, text_column, characters, seed, _local(spec))):
        documents.append(document)
        held += len(document.text)
        if held >= characters:
            break
    if not documents:
        raise UserError(f"The corpus {' '.join(spec)} has no text.", do="Give files with text, or local and generated.")
    return documents


def _local(spec: Sequence[str]) -> LocalTexts:
    return local_documents() if "local" in spec else LocalTexts((), (), 0)


def _streams(
    spec: Sequence[str], text_column: str, tokens: int, seed: int, local: LocalTexts
) -> Mapping[str, Iterator[Document]]:
    paths = [entry for entry in spec if entry not in DEFAULT]
    _check_names(paths)
    streams = dict[str, Iterator[Document]]()
    for entry in spec:
        match entry:
            case "local":
                order = default_rng(seed).permutation(len(local.documents))
                streams["local"] = (local.documents[at] for at in order)
            case "generated":
                # A document has more than one token, so they never run out.
                streams["generated"] = generated_documents(tokens, seed)
            case _:
                streams["files"] = file_documents(paths, text_column)
    return streams


def _check_names(paths: Sequence[str]) -> None:
    """A plain word that is no file is a source misspelt."""
    for path in paths:
        if Path(path).name == path and not Path(path).suffix and not Path(path).exists():
            raise UserError(f"There is no corpus source and no file {path!r}.", do=nearest(path, DEFAULT))


def _interleave(streams: Mapping[str, Iterator[Document]]) -> Iterator[Document]:
    """The next document is always of the source that is furthest behind its share of characters."""
    given = dict.fromkeys(streams, 0.0)
    while given:
        name = min(given, key=lambda name: given[name])
        document = next(streams[name], None)
        if document is None:
            del given[name]
        else:
            given[name] += len(document.text) / _WEIGHTS[name]
            yield document


def _fill(
    stream: Iterator[Document], tokens: int, tokenizer: PreTrainedTokenizerBase, context: int
) -> tuple[list[Document], Windows]:
    """Documents until their windows count `tokens` tokens, and these windows."""
    documents, parts, missing = list[Document](), [cut_windows([], tokenizer, context)], tokens
    while missing > 0:
        # No text has more tokens than bytes, so only the last document of a batch can exceed what is missing.
        batch, left = list[Document](), min(missing, _BYTES_AT_ONCE)
        while left > 0 and (document := next(stream, None)) is not None:
            batch.append(document)
            left -= len(document.text.encode())
        if not batch:
            break
        part = cut_windows(batch, tokenizer, context)
        owner = (part.document + len(documents)).astype(np.int32)
        parts.append(Windows(part.tokens, part.length, owner, part.offset, part.first))
        documents.extend(batch)
        missing -= part.n_tokens
    columns = zip(*((part.tokens, part.length, part.document, part.offset) for part in parts), strict=True)
    return documents, Windows(*(np.concatenate(column) for column in columns), first=parts[0].first)


def _count(source: str, documents: Sequence[Document], windows: Windows) -> SourceCount:
    of_source = np.array([document.source == source for document in documents], dtype=np.bool_)
    return SourceCount(source, int(of_source.sum()), windows.select(of_source[windows.document]).n_tokens)


def _digest(documents: Sequence[Document]) -> str:
    """The digests of id and text, each of one length, so that no two corpora give the same bytes."""
    digest = hashlib.sha256()
    for part in chain.from_iterable((document.id, document.text) for document in documents):
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()


def _notes(local: LocalTexts, windows: Windows, tokens: int) -> tuple[str, ...]:
    notes = list[str]()
    if local.missing:
        notes.append(f"Not installed from a pure-Python wheel, so left out: {', '.join(local.missing)}.")
    if local.changed:
        notes.append(f"{local.changed} local files differ from what was installed and were left out.")
    if windows.n_tokens < tokens:
        notes.append(f"The corpus has {windows.n_tokens:,} of the {tokens:,} tokens asked for.")
    return tuple(notes)
