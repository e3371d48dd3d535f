"""Documents made from nothing but a seed, whose every span has a known kind.

They mix encoded data, code and scripts, so that a feature can be judged against the truth. All randomness is
integer draws from PCG64, so the same seed gives the same bytes on every machine.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias, TypeVar, cast

from numpy.random import PCG64, Generator

from sae.corpus.document import Document, Span

Writer: TypeAlias = Callable[[Generator, int], str]
"""Writes about so many characters; the last word, element or statement may run over."""
Json: TypeAlias = str | int | float | bool | list[object] | dict[str, object] | None

_T = TypeVar("_T")

_WORDS = Path(__file__).parent / "words"
_SHORTEST, _LONGEST = 100, 640
_MOST_KINDS = 5


@dataclass(frozen=True, slots=True)
class _Script:
    """How sentences look in one language."""

    words: str
    comma: str = ","
    stops: tuple[str, ...] = (".", ".", ".", ".", "?", "!")
    digits: str = "0123456789"
    capitals: bool = False


_ENGLISH = _Script("english", capitals=True)
_ARABIC = _Script("arabic", comma="،", stops=(".", ".", ".", ".", "؟", "!"), digits="٠١٢٣٤٥٦٧٨٩")
_FOREIGN = ("hebrew", "arabic", "korean", "cyrillic")


@lru_cache
def _words(language: str) -> tuple[str, ...]:
    return tuple((_WORDS / f"{language}.txt").read_text(encoding="utf-8").split())


@lru_cache
def _long_words() -> tuple[str, ...]:
    return tuple(word for word in _words("english") if len(word) > 3)


def _below(rng: Generator, bound: int) -> int:
    return int(rng.integers(bound))


def _between(rng: Generator, low: int, high: int) -> int:
    """Draw from low to high, both included."""
    return int(rng.integers(low, high + 1))


def _pick(rng: Generator, items: tuple[_T, ...]) -> _T:
    return items[_below(rng, len(items))]


def _many_below(rng: Generator, bound: int, count: int) -> list[int]:
    return cast("list[int]", rng.integers(bound, size=count).tolist())


def _draw(rng: Generator, alphabet: str, count: int) -> str:
    return "".join([alphabet[i] for i in _many_below(rng, len(alphabet), count)])


def _name(rng: Generator) -> str:
    return _pick(rng, _long_words())


def _hex(rng: Generator, digits: int) -> str:
    return _draw(rng, "0123456789abcdef", digits)


def _wrap(text: str, width: int) -> str:
    return "\n".join(text[i : i + width] for i in range(0, len(text), width))


def _fill(rng: Generator, length: int, separator: str, unit: Callable[[Generator], str]) -> str:
    """Join units until there are ``length`` characters."""
    parts = [unit(rng)]
    size = len(parts[0])
    while size < length:
        parts.append(unit(rng))
        size += len(separator) + len(parts[-1])
    return separator.join(parts)


def _sentence(rng: Generator, script: _Script) -> str:
    words = _words(script.words)
    count, size = _between(rng, 4, 14), len(words)
    first, second = _many_below(rng, size, count), _many_below(rng, size, count)
    # The product of two draws favours the head of the list, where the function words stand.
    chosen = [words[i * j // size] for i, j in zip(first, second, strict=True)]
    if script is _ENGLISH and _below(rng, 16) == 0:
        chosen[-1] = _pick(rng, _words(_pick(rng, _FOREIGN)))
    if _below(rng, 6) == 0:
        chosen[1] = _draw(rng, script.digits, _between(rng, 1, 4))
    if len(chosen) > 7:
        chosen[_between(rng, 2, 5)] += script.comma
    if script.capitals:
        chosen[0] = chosen[0].capitalize()
    return " ".join(chosen) + _pick(rng, script.stops)


def _base64(rng: Generator, length: int) -> str:
    """Random bytes, on one line or wrapped at 76 columns."""
    count = max(1, length * 3 // 4)
    encoded = base64.b64encode(bytes(_many_below(rng, 256, count))).decode("ascii")
    return encoded if length < _SHORTEST or _below(rng, 3) == 0 else _wrap(encoded, 76)


def _hex_dump(rng: Generator, length: int) -> str:
    """Lines of an offset and sixteen bytes, without the text column, which would not be hex."""
    start = _below(rng, 4096) * 16
    rows = (bytes(_many_below(rng, 256, 16)).hex(" ") for _ in range(-(-length // 58)))
    return "\n".join(f"{start + 16 * i:08x}  {row}" for i, row in enumerate(rows))


def _hex_any(rng: Generator, length: int) -> str:
    """Write a dump, or a list of hashes, of UUIDs or of colours."""
    form = _below(rng, 5)
    if form == 0:
        return _fill(rng, length, "\n", lambda rng: "-".join(_hex(rng, digits) for digits in (8, 4, 4, 4, 12)))
    if form == 1:
        return _fill(rng, length, ", ", lambda rng: "#" + _hex(rng, 6))
    if form == 2:
        digits = _pick(rng, (32, 40, 64))
        return _fill(rng, length, "\n", lambda rng: _hex(rng, digits))
    return _hex_dump(rng, length)


def _dna(rng: Generator, length: int) -> str:
    """Write wrapped lines of bases alone: a FASTA header is a lead-in, outside the span."""
    return _wrap(_draw(rng, _pick(rng, ("ACGT", "ACGT", "acgt")), length), _pick(rng, (60, 70, 80)))


def _one_url(rng: Generator) -> str:
    scheme = _pick(rng, ("https", "https", "https", "http", "ftp"))
    host = _pick(rng, ("www.", "", "api.", "cdn.")) + _pick(rng, ("", f"{_name(rng)}-")) + _name(rng)
    domain = _pick(rng, ("com", "org", "net", "io", "de", "co.uk")) + _pick(rng, ("", "", "", "", ":8080"))
    path = "".join(f"/{_name(rng)}" for _ in range(_below(rng, 4)))
    leaf = _pick(rng, ("", "/", ".html", ".png", f"/{_below(rng, 100000)}")) if path else "/"
    pairs = [f"{_name(rng)}={_pick(rng, (_name(rng), str(_below(rng, 1000))))}" for _ in range(_below(rng, 4))]
    query = "?" + "&".join(pairs) if pairs else ""
    fragment = _pick(rng, ("", "", "", f"#{_name(rng)}"))
    return f"{scheme}://{host}.{domain}{path}{leaf}{query}{fragment}"


def _key(rng: Generator) -> str:
    first, second = _name(rng), _name(rng)
    return _pick(rng, (first, first, f"{first}_{second}", f"{first}{second.capitalize()}"))


def _json_value(rng: Generator, depth: int) -> Json:
    form = _below(rng, 8 if depth else 6)
    if form < 5:
        text = " ".join(_name(rng) for _ in range(_between(rng, 1, 4)))
        month, day, hour = _between(rng, 1, 12), _between(rng, 1, 28), _below(rng, 24)
        stamp = f"{_between(rng, 1990, 2029)}-{month:02}-{day:02}T{hour:02}:{_below(rng, 60):02}:00Z"
        number = _between(rng, -99999, 99999)
        return _pick(rng, (text, text, stamp, number, number / 100, True, False, None))
    if form == 5:
        return [*_many_below(rng, 1000, _below(rng, 6))]
    if form == 6:
        return [_json_value(rng, depth - 1) for _ in range(_between(rng, 1, 3))]
    return {_key(rng): _json_value(rng, depth - 1) for _ in range(_between(rng, 1, 4))}


def _json(rng: Generator, length: int) -> str:
    indent = _pick(rng, (None, 2, 4))
    entries, size = dict[str, object](), 0
    while size < length:
        key = _key(rng)
        entries[key] = _json_value(rng, 2)
        size += len(json.dumps({key: entries[key]}, indent=indent)) - 2
    return json.dumps(entries, indent=indent)


def _sql_value(rng: Generator) -> str:
    return _pick(rng, (str(_below(rng, 10000)), f"'{_name(rng)}'", f"'{_name(rng)} {_name(rng)}'", "NULL"))


def _column(rng: Generator) -> str:
    return _pick(rng, (_name(rng), f"{_name(rng)}_id", f"{_name(rng)}_{_name(rng)}"))


def _sql_condition(rng: Generator) -> str:
    operator = _pick(rng, ("=", "<>", "<", ">=", "LIKE"))
    value = f"'%{_name(rng)}%'" if operator == "LIKE" else str(_below(rng, 1000))
    return f"{_column(rng)} {operator} {value}"


def _sql_statement(rng: Generator) -> str:
    table = _name(rng)
    columns = list(dict.fromkeys(_column(rng) for _ in range(_between(rng, 2, 5))))
    listed = ", ".join(columns)
    form = _below(rng, 5)
    if form == 0:
        types = ("INTEGER NOT NULL", "TEXT", "VARCHAR(255)", "BOOLEAN DEFAULT FALSE", "NUMERIC(10, 2)", "TIMESTAMP")
        rows = "".join(f",\n    {column} {_pick(rng, types)}" for column in columns)
        return f"CREATE TABLE {table} (\n    id INTEGER PRIMARY KEY{rows}\n);"
    if form == 1:
        return f"INSERT INTO {table} ({listed})\nVALUES ({', '.join(_sql_value(rng) for _ in columns)});"
    if form == 2:
        changes = ", ".join(f"{column} = {_sql_value(rng)}" for column in columns)
        return f"UPDATE {table} SET {changes} WHERE {_sql_condition(rng)};"
    other = _name(rng)
    join = _pick(rng, ("", f"\nJOIN {other} ON {table}.{other}_id = {other}.id"))
    order = _pick(rng, ("", f"\nORDER BY {columns[0]} DESC LIMIT {_between(rng, 1, 100)}"))
    return f"SELECT {listed}\nFROM {table}{join}\nWHERE {_sql_condition(rng)} AND {_sql_condition(rng)}{order};"


def _html_element(rng: Generator, most: int = 3, margin: str = "") -> str:
    """Write an element nested fewer than ``most`` deep."""
    depth = _below(rng, most)
    attribute = _pick(rng, ("", f' class="{_name(rng)}"', f' id="{_name(rng)}-{_name(rng)}"', f' title="{_name(rng)}"'))
    if depth == 0:
        tag = _pick(rng, ("p", "span", "a", "h2", "td", "strong"))
        link = f' href="/{_name(rng)}/{_name(rng)}"' if tag == "a" else ""
        text = " ".join(_name(rng) for _ in range(_between(rng, 1, 8))).capitalize()
        return f"{margin}<{tag}{link}{attribute}>{text}</{tag}>"
    tag, inner = _pick(rng, ("div", "section", "article", "nav", "main")), margin + "  "
    children = (_html_element(rng, depth, inner) for _ in range(_between(rng, 1, 2)))
    image = f'\n{inner}<img src="/{_name(rng)}.png" alt="{_name(rng)}">' if _below(rng, 4) == 0 else ""
    return f"{margin}<{tag}{attribute}>{image}\n" + "\n".join(children) + f"\n{margin}</{tag}>"


KINDS: Mapping[str, Writer] = MappingProxyType({
    "base64": _base64, "hex": _hex_any, "dna": _dna, "json": _json,
    "url": partial(_fill, separator="\n", unit=_one_url),
    "sql": partial(_fill, separator="\n", unit=_sql_statement),
    "html": partial(_fill, separator="\n", unit=_html_element),
    "hebrew": partial(_fill, separator=" ", unit=partial(_sentence, script=_Script("hebrew"))),
    "arabic": partial(_fill, separator=" ", unit=partial(_sentence, script=_ARABIC)),
    "korean": partial(_fill, separator=" ", unit=partial(_sentence, script=_Script("korean"))),
    "cyrillic": partial(_fill, separator=" ", unit=partial(_sentence, script=_Script("cyrillic", capitals=True))),
    "english": partial(_fill, separator=" ", unit=partial(_sentence, script=_ENGLISH)),
})  # fmt: skip
"""Writer of each kind; a call gives about as many characters as it is asked for."""


def _lead(rng: Generator, kind: str, text: str) -> str:
    """Write what stands before a segment, outside its span."""
    if kind == "base64" and "\n" not in text:
        media = _pick(rng, ("image/png", "image/jpeg", "font/woff2", "application/pdf"))
        return _pick(rng, (f"data:{media};base64,", f"{_key(rng)}="))
    if kind == "dna":
        return f">{_name(rng)}{_below(rng, 1000)} chr{_between(rng, 1, 22)}:{_below(rng, 10**8)}\n"
    first, second = _name(rng), _name(rng)
    return _pick(rng, ("", "", "", f"The {first} {second}:\n", f"See {first} {second}.\n", f"{first.capitalize()}:\n"))


def _segments(rng: Generator, characters: int) -> Iterator[tuple[str, str, str]]:
    """Yield kind, lead-in and text of each segment."""
    left, kinds = list(KINDS), list[str]()
    for _ in range(1 if _below(rng, 6) == 0 else _between(rng, 2, _MOST_KINDS)):
        kinds.append(left.pop(_below(rng, len(left))))
    size = turn = 0
    while size < characters:
        # Every kind has its turn before any comes back at random.
        kind = kinds[turn] if turn < len(kinds) else _pick(rng, tuple(kinds))
        tokens = _between(rng, 2, 6) if kind == "base64" and _below(rng, 3) == 0 else 0
        for _ in range(max(1, tokens)):
            text = KINDS[kind](rng, _between(rng, 16, 88) if tokens else _between(rng, _SHORTEST, _LONGEST))
            lead = _lead(rng, kind, text)
            yield kind, lead, text
            size += len(lead) + len(text)
        turn += 1


def _document(seed: int, index: int, characters: int) -> Document:
    rng = Generator(PCG64([seed, index]))
    parts, spans, at = list[str](), list[Span](), 0
    for kind, lead, text in _segments(rng, characters):
        spans.append(Span(at + len(lead), at + len(lead) + len(text), kind))
        parts.append(f"{lead}{text}\n")
        at += len(parts[-1])
    return Document(f"generated/{seed}/{index}", "".join(parts), "generated", tuple(spans))


def generated_documents(count: int, seed: int, characters: int = 4000) -> Iterator[Document]:
    """Yield ``count`` documents of about ``characters`` characters, the last segment running over.

    Document i depends on ``seed``, i and ``characters`` alone. Every segment is a span; only lead-ins, such as a
    FASTA header or ``token=``, and the newlines between segments stand outside.
    """
    return (_document(seed, index, characters) for index in range(count))
