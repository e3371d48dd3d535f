"""Listed prices per token: the price table is asked once per model and day, not once per call. The sums are exact."""

from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache

from autointerp.records.call import Usage


@dataclass(frozen=True, slots=True)
class _Rates:
    """Dollars per token of a prompt within one tier."""

    plain: Decimal
    cache_read: Decimal
    cache_write: Decimal
    output: Decimal


@dataclass(frozen=True, slots=True)
class _Listed:
    """A model's prices on one day."""

    starts: tuple[int, ...]
    """Input tokens above which the next tier begins: it holds for the whole prompt."""
    tiers: tuple[_Rates, ...]
    """One more than `starts`."""


def listed_price(provider: str, name: str, usage: Usage, *, batch: bool = False) -> Decimal:
    """Dollars for `usage` today, by the provider's batch API or not.

    Raises `LookupError` for a model that the table lacks, `ValueError` for more cached tokens than input.
    """
    plain = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
    if plain < 0:
        raise ValueError(f"More cached tokens than input: {usage}.")
    listed = _listed(provider, name, batch, datetime.now(UTC).date())
    rates = listed.tiers[bisect_left(listed.starts, usage.input_tokens)]
    return (
        rates.plain * plain
        + rates.cache_read * usage.cache_read_tokens
        + rates.cache_write * usage.cache_write_tokens
        + rates.output * usage.output_tokens
    )


@lru_cache(maxsize=256)
def _listed(provider: str, name: str, batch: bool, day: date) -> _Listed:  # noqa: ARG001 - prices change by day
    from genai_prices import Usage as ListedUsage
    from genai_prices import calc_price
    from genai_prices.types import PriceCalculation, TieredPrices

    def ask(read: int, cache_read: int, cache_write: int, written: int) -> PriceCalculation:
        tokens = ListedUsage(
            input_tokens=read, cache_read_tokens=cache_read, cache_write_tokens=cache_write, output_tokens=written
        )
        return calc_price(tokens, name, provider_id=provider, price_context={"processing": "batch"} if batch else None)

    prices = vars(ask(1, 0, 0, 0).model_price).values()
    starts = sorted({tier.start for price in prices if isinstance(price, TieredPrices) for tier in price.tiers})

    def rates(read: int) -> _Rates:
        """Those of a prompt of `read` tokens: within a tier, prices are proportional to tokens."""
        plain = ask(read, 0, 0, 0).total_price
        return _Rates(
            plain / read,
            ask(read, read, 0, 0).total_price / read,
            ask(read, 0, read, 0).total_price / read,
            ask(read, 0, 0, 1).total_price - plain,
        )

    return _Listed(tuple(starts), tuple(rates(start + 1) for start in (0, *starts)))
