"""What other forms of a simulator's answer would cost, measured on the levels of the transcripts' trials.

    python -m benchmarks.answer_forms

Tokens are counted in three ways: as bytes / 4, as everywhere; by the embedded subject's BPE tokenizer (8,192 entries:
larger vocabularies make fewer tokens of the same text); and as the pieces into which Llama 3's tokenizer cuts a text
before it looks into its vocabulary (three digits each, words, runs of punctuation), which is the least it can come to.
Bytes / 4 flatters texts of digits and brackets, of which tokenizers make short tokens.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from tokenizers import Regex, Tokenizer
from tokenizers.pre_tokenizers import Split

from autointerp import notation
from autointerp.llm.prices import NANO, Prices
from autointerp.prompts import load_prompt
from autointerp.records.call import Usage
from autointerp.records.trial import Item
from autointerp.simulate.llm import render_simulate
from benchmarks.cost_table import TOLD, tokens
from benchmarks.transcripts import Posed, read_units
from sae import PRETRAINED

MODEL = "openai/gpt-6-luna"
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
Levels: TypeAlias = np.ndarray
"""Of shape (item, token)."""


def digits(levels: Levels) -> object:
    """The shipped form: every item's number and a digit per token."""
    shown = [{"item": i, "levels": notation.write_levels(row)} for i, row in enumerate(levels, start=1)]
    return {"predictions": shown}


def sparse(levels: Levels) -> object:
    """Item, token and level of what fires; items in which nothing does are acknowledged by number."""
    hits = [[int(item) + 1, int(token) + 1, int(levels[item, token])] for item, token in np.argwhere(levels)]
    return {"hits": hits, "none": [i for i, row in enumerate(levels, start=1) if not row.any()]}


def sparse_by_item(levels: Levels) -> object:
    """The same, item by item."""
    return {
        "predictions": [
            {"item": i, "hits": [[int(token) + 1, int(row[token])] for token in np.flatnonzero(row)]}
            for i, row in enumerate(levels, start=1)
        ]
    }


def numbered_digits(levels: Levels) -> object:
    """A text per item: its number, a colon, a digit per token."""
    return {"predictions": [f"{i}:{notation.write_levels(row)}" for i, row in enumerate(levels, start=1)]}


FORMS: dict[str, tuple[Callable[[Levels], object], bool]] = {
    "digit strings (shipped)": (digits, False),
    "sparse, tokens counted by the model": (sparse, False),
    "sparse, tokens numbered for the model": (sparse, True),
    "sparse by item, tokens counted by the model": (sparse_by_item, False),
    "numbered digit strings (untried)": (numbered_digits, False),
}
"""Whether the prompt's tokens have to be numbered, by form."""


def measure(units: Sequence[Posed], count: Callable[[str], int], name: str) -> tuple[float, float, float]:
    """Output tokens, input tokens without the shared prefix, and dollars per call of 20 items."""
    form, is_numbered = FORMS[name]
    written, read, cost = [], [], []
    for unit in units:
        items = unit.trial.items
        if is_numbered:
            items = [Item(tuple(f"{i}:{token}" for i, token in enumerate(item.tokens, start=1))) for item in items]
        request = render_simulate(TOLD, items, MODEL, load_prompt("simulate", "v1"))
        levels = notation.quantise(unit.trial.truth, unit.trial.maximum, unit.trial.top_level)
        written.append(count(json.dumps(form(levels), separators=(",", ":"))))
        read.append(count(request.user))
        prefix = count(request.system)
        nano = Prices().cost(MODEL, Usage(prefix + read[-1], prefix, 0, written[-1]), batch=True)
        assert nano is not None
        cost.append(nano / NANO)
    return float(np.mean(written)), float(np.mean(read)), float(np.mean(cost))


def main() -> None:
    """Print the table in Markdown."""
    units = read_units(Path("results/transcripts"))
    tokenizer = Tokenizer.from_file(str(PRETRAINED / "subject" / "tokenizer.json"))
    pieces = Split(Regex(_PIECES), "isolated")
    counts: dict[str, Callable[[str], int]] = {
        "bytes / 4": tokens,
        "BPE": lambda text: len(tokenizer.encode(text).ids),
        "pieces": lambda text: len(pieces.pre_tokenize_str(text)),
    }
    heads = [f"output, {count} | input, {count} | cost, {count}" for count in counts]
    print(f"| form of the answer | {' | '.join(heads)} |")
    print("|---|" + "---:|---:|---:|" * len(counts))
    shipped = {count: measure(units, how, next(iter(FORMS)))[2] for count, how in counts.items()}
    for name in FORMS:
        cells: list[str] = []
        for count, how in counts.items():
            written, read, cost = measure(units, how, name)
            cells += [f"{written:,.0f}", f"{read:,.0f}", f"{cost / shipped[count] - 1:+.0%}"]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
