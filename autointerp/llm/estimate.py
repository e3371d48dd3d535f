"""What a list of requests will cost, before anything is sent."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autointerp.llm.prices import OVERHEAD, Prices, expected_input, expected_output, request_bytes
from autointerp.llm.provider import Provider, answer_key
from autointerp.llm.store import StoreReader
from autointerp.records.call import Request


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
    paid: defaultdict[tuple[str, str], dict[bytes, Request]] = defaultdict(dict)
    asked: defaultdict[tuple[str, str], int] = defaultdict(int)
    seen: set[bytes] = set()
    for request in requests:
        group = request.stage, request.model
        asked[group] += 1
        key = answer_key(providers[request.model], request)
        if key not in seen and not is_stored(key):
            paid[group][key] = request
        seen.add(key)
    return [_row(*group, list(paid[group].values()), asked[group], prices, batch) for group in sorted(asked)]


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


def _row(stage: str, model: str, paid: list[Request], asked: int, prices: Prices, batch: bool) -> Estimate:
    return Estimate(
        stage=stage,
        model=model,
        calls=len(paid),
        cached=asked - len(paid),
        input_expected=sum(map(expected_input, paid)),
        input_upper=sum(request_bytes(request) + OVERHEAD for request in paid),
        output_expected=sum(map(expected_output, paid)),
        output_upper=sum(request.max_tokens for request in paid),
        low=sum(prices.expected(request, prefix_cached=True, batch=batch) for request in paid),
        expected=sum(prices.expected(request, batch=batch) for request in paid),
        upper=sum(prices.bound(request, batch=batch) for request in paid),
    )
