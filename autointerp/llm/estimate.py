"""What a list of requests will cost, before anything is sent."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autointerp.llm.prices import OVERHEAD, Prices, expected_input, expected_output, request_bytes
from autointerp.llm.provider import Provider, answer_key
from autointerp.llm.store import StoreReader
from autointerp.records.call import Request

_SUMS = 9
"""Numbers of an `Estimate`."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Calls, tokens and money of one stage with one model."""

    stage: str
    """``explain`` or ``simulate``."""
    model: str
    """``provider/name``."""
    calls: int
    """Requests that would be sent: all tokens and money below are theirs. Identical requests count once."""
    cached: int
    """Requests that the store answers, or that are identical to another, at no cost."""
    input_expected: int
    """Input tokens at four bytes each."""
    input_upper: int
    """Input tokens at one byte each, and the constant overhead."""
    output_expected: int
    """Output tokens at half of each request's limit."""
    output_upper: int
    """Output tokens at the limit."""
    low: int
    """Nano-dollars as expected, with every system text read from the provider's prompt cache."""
    expected: int
    """Nano-dollars as expected, without prompt caching."""
    upper: int
    """Nano-dollars that cannot be exceeded without a retry: the sum of the bounds."""


def estimate(
    requests: Iterable[Request],
    prices: Prices,
    providers: Mapping[str, Provider],
    store_path: Path | None = None,
    *,
    batch: bool = False,
) -> list[Estimate]:
    """Rows by stage and model, at the price of the batch APIs with `batch`; `providers` may be offline.

    Raises `UserError` where a model has no price.
    """
    store = StoreReader.open(store_path) if store_path is not None and store_path.is_file() else None
    try:
        stored: Callable[[bytes], bool] = lambda key: store is not None and store.answer(key) is not None  # noqa: E731
        return _estimate(requests, prices, providers, stored, batch)
    finally:
        if store is not None:
            store.close()


def _estimate(
    requests: Iterable[Request],
    prices: Prices,
    providers: Mapping[str, Provider],
    is_stored: Callable[[bytes], bool],
    batch: bool,
) -> list[Estimate]:
    sums: defaultdict[tuple[str, str], tuple[int, ...]] = defaultdict(lambda: (0,) * _SUMS)
    seen: set[bytes] = set()
    for request in requests:
        key = answer_key(providers[request.model], request)
        free = key in seen or is_stored(key)
        seen.add(key)
        each = (0, 1, *(0,) * (_SUMS - 2)) if free else (1, 0, *_expected(request, prices, batch))
        group = request.stage, request.model
        sums[group] = tuple(map(sum, zip(sums[group], each, strict=True)))
    return [Estimate(*group, *sums[group]) for group in sorted(sums)]


def minutes(rows: Iterable[Estimate], requests_per_minute: int | None, tokens_per_minute: int | None) -> float | None:
    """Least minutes at limits per model, of which those given count; models are called beside each other."""
    if requests_per_minute is None and tokens_per_minute is None:
        return None
    spent: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        by_requests = row.calls / requests_per_minute if requests_per_minute else 0.0
        by_tokens = (row.input_expected + row.output_expected) / tokens_per_minute if tokens_per_minute else 0.0
        spent[row.model] += max(by_requests, by_tokens)
    return max(spent.values(), default=0.0)


def _expected(request: Request, prices: Prices, batch: bool) -> tuple[int, ...]:
    """What a request adds to the last numbers of an `Estimate`, from `input_expected` on."""
    return (
        expected_input(request),
        request_bytes(request) + OVERHEAD,
        expected_output(request),
        request.max_tokens,
        prices.expected(request, prefix_cached=True, batch=batch),
        prices.expected(request, batch=batch),
        prices.bound(request, batch=batch),
    )
