"""Bounds before, costs after, estimates for people."""

import asyncio
from decimal import Decimal
from pathlib import Path

import genai_prices
import pytest
from genai_prices import data
from hypothesis import given
from hypothesis import strategies as st

from autointerp.llm.catalog import PROVIDERS, make_providers
from autointerp.llm.estimate import Estimate, estimate, minutes
from autointerp.llm.prices import OVERHEAD, GivenPrice, Prices, parse_dollars, parse_price, request_bytes
from autointerp.llm.rates import listed_price
from autointerp.llm.scripted import ScriptedProvider
from autointerp.records.call import Usage
from sae.errors import UserError
from tests.autointerp.llm_parts import CHEAP, MODEL, open_client, parrot, request

HAIKU, SONNET, LUNA = "anthropic/claude-haiku-5-5", "anthropic/claude-sonnet-5-5", "openai/gpt-6-luna"


def test_a_bound_is_bytes_at_the_dearer_input_price_and_all_output() -> None:
    """System, user and schema count by byte; where writing to the prompt cache is dearer, it sets the price."""
    asked = request("é" * 50, model=SONNET, system="s" * 40, schema='{"a":1}', max_tokens=100)
    assert request_bytes(asked) == 100 + 40 + 7
    assert Prices().bound(asked) == (147 + OVERHEAD) * 2_500 + 100 * 10_000


@given(
    text=st.text(max_size=300),
    model=st.sampled_from([HAIKU, SONNET, LUNA, "openai/gpt-4o-mini"]),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
def test_no_bill_exceeds_its_bound(text: str, model: str, shares: tuple[float, float, float]) -> None:
    """Whatever share of the bytes are tokens, are cached or are written to the cache, the cost is within the bound."""
    asked = request(text, model=model, max_tokens=64)
    read = int((request_bytes(asked) + OVERHEAD) * shares[0])
    cached = int(read * shares[1])
    usage = Usage(read, cached, int((read - cached) * shares[2]), 64)
    cost = Prices().cost(model, usage)
    assert cost is not None and cost <= Prices().bound(asked)


def test_a_long_prompt_is_bounded_at_its_tier() -> None:
    """Above 100,000 tokens Haiku costs five times as much, for the whole prompt."""
    asked = request("x" * 150_000, model=HAIKU, max_tokens=1)
    assert Prices().bound(asked) >= 150_000 * 500


def test_cached_input_is_cheaper_than_fresh() -> None:
    """Tokens read from the provider's cache are billed at its cache price."""
    assert Prices().cost(HAIKU, Usage(1000, 1000, 0, 0)) == 10_000
    assert Prices().cost(HAIKU, Usage(1000, 0, 0, 0)) == 100_000


def test_a_usage_that_contradicts_itself_has_no_cost() -> None:
    """More cached than read: the caller charges the bound."""
    assert Prices().cost(LUNA, Usage(10, 20, 0, 0)) is None


def test_an_unknown_model_needs_a_given_price() -> None:
    """Without a price no budget could hold, so the model is refused by name and the way out is said."""
    with pytest.raises(UserError, match=r"openai/home-made is not known.*\n.*\n.*--price IN,OUT"):
        Prices().require("openai/home-made")
    Prices(parse_price("0,0")).require("openai/home-made")


def test_a_given_price_never_replaces_a_known_one() -> None:
    """`--price` is for the models that the table lacks."""
    free = Prices(parse_price("0,0"))
    assert free.cost(LUNA, Usage(1000, 0, 0, 0)) == 100_000
    assert free.cost("openai/home-made", Usage(1000, 0, 0, 1000)) == 0


def test_a_price_is_two_amounts() -> None:
    """Dollars per million tokens, in and out."""
    assert parse_price("0.1, 0.5") == GivenPrice(Decimal("0.1"), Decimal("0.5"))


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "a,b", "-1,2", "nan,1", "inf,1"])
def test_other_prices_are_refused(text: str) -> None:
    """The message shows the form."""
    with pytest.raises(UserError, match="IN,OUT"):
        parse_price(text)


def test_dollars_become_nano_dollars_rounded_down() -> None:
    """A budget is never rounded up."""
    assert parse_dollars("$0.50") == 500_000_000
    assert parse_dollars("0.0000000019") == 1


@pytest.mark.parametrize("text", ["", "five", "-1", "nan", "inf"])
def test_other_budgets_are_refused(text: str) -> None:
    """A budget that cannot be read must not become none."""
    with pytest.raises(UserError, match="--max-cost"):
        parse_dollars(text)


def test_an_estimate_counts_identical_requests_once() -> None:
    """Rows by stage and model; low <= expected <= upper."""
    asked = [request(f"unit {i % 3}", system="s" * 400, model=SONNET, max_tokens=100) for i in range(5)]
    asked.append(request("score", model=LUNA, stage="simulate"))
    first, second = estimate(asked, Prices(), make_providers([SONNET, LUNA], offline=True))
    assert (first.stage, first.model, first.calls, first.cached) == ("explain", SONNET, 3, 2)
    assert first.input_upper == 3 * (406 + OVERHEAD)
    assert first.input_expected == 3 * 102
    assert (first.output_expected, first.output_upper) == (150, 300)
    assert 0 < first.low < first.expected < first.upper
    assert first.upper == 3 * Prices().bound(asked[0])
    assert (second.stage, second.calls, second.cached) == ("simulate", 1, 0)


def test_an_estimate_without_a_store_finds_nothing_cached(tmp_path: Path) -> None:
    """A store that does not exist yet is no error, and is not made."""
    path = tmp_path / "none.sqlite"
    [row] = estimate([request()], CHEAP, {MODEL: ScriptedProvider(parrot)}, path)
    assert (row.calls, row.cached) == (1, 0)
    assert not path.exists()


def test_an_estimate_leaves_out_what_is_stored(tmp_path: Path) -> None:
    """An answer that was paid for costs nothing the next time."""

    async def main() -> None:
        async with open_client(tmp_path) as client:
            await client.answer(request("paid"))

    asyncio.run(main())
    providers, path = {MODEL: ScriptedProvider(parrot)}, tmp_path / "answers.sqlite"
    [row] = estimate([request("paid"), request("new")], CHEAP, providers, path)
    assert (row.calls, row.cached) == (1, 1)
    assert row.upper == CHEAP.bound(request("new"))


def test_a_batch_costs_half() -> None:
    """Bounds, costs and expectations alike, cached input included."""
    asked = request("é" * 50, model=SONNET, system="s" * 400, max_tokens=100)
    plain = Prices().bound(asked), Prices().expected(asked), Prices().cost(SONNET, Usage(1000, 800, 100, 50))
    prices = Prices()
    batch = (
        prices.bound(asked, batch=True),
        prices.expected(asked, batch=True),
        prices.cost(SONNET, Usage(1000, 800, 100, 50), batch=True),
    )
    assert [2 * each for each in batch if each] == list(plain)


def test_a_batch_costs_the_full_price_where_the_table_has_no_other() -> None:
    """So a bound always holds; a given price is taken as it is."""
    old = "anthropic/claude-sonnet-4-0"
    assert Prices().bound(request(model=old), batch=True) == Prices().bound(request(model=old))
    assert CHEAP.bound(request(), batch=True) == CHEAP.bound(request())


@given(
    model=st.sampled_from([HAIKU, SONNET, LUNA, "openai/gpt-4o-mini", "anthropic/claude-sonnet-4-0"]),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
def test_no_bill_of_a_batch_exceeds_its_bound(model: str, shares: tuple[float, float, float]) -> None:
    """Whatever is cached, and although not every table halves every price."""
    asked = request("x" * 500, model=model, max_tokens=64)
    read = int((request_bytes(asked) + OVERHEAD) * shares[0])
    cached = int(read * shares[1])
    cost = Prices().cost(model, Usage(read, cached, int((read - cached) * shares[2]), 64), batch=True)
    assert cost is not None and cost <= Prices().bound(asked, batch=True)


@given(
    model=st.sampled_from([HAIKU, SONNET, LUNA, "openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"]),
    read=st.integers(0, 300_000),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    written=st.integers(0, 20_000),
    batch=st.booleans(),
)
def test_prices_that_are_kept_are_exactly_the_listed_ones(
    model: str, read: int, shares: tuple[float, float], written: int, *, batch: bool
) -> None:
    """In every tier, with any share cached, by the batch API or not."""
    cached = int(read * shares[0])
    usage = Usage(read, cached, int((read - cached) * shares[1]), written)
    tokens = genai_prices.Usage(
        input_tokens=read,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=written,
    )
    provider, _, name = model.partition("/")
    context = {"processing": "batch"} if batch else None
    listed = genai_prices.calc_price(tokens, name, provider_id=provider, price_context=context)
    assert listed_price(provider, name, usage, batch=batch) == listed.total_price


def test_no_price_of_ours_depends_on_the_hour() -> None:
    """They are kept for a day."""
    for provider in data.providers:
        if provider.id in PROVIDERS:
            for model in provider.models:
                assert "TimeOfDateConstraint" not in repr((model.prices, model.price_variants))


def test_an_estimate_of_a_batch_is_half() -> None:
    """At the price of the batch APIs, low, expected and at most."""
    asked, providers = [request("score", model=LUNA)], make_providers([LUNA], offline=True)
    [plain], [batch] = (estimate(asked, Prices(), providers, batch=each) for each in (False, True))
    for half, whole in ((batch.low, plain.low), (batch.expected, plain.expected), (batch.upper, plain.upper)):
        assert 2 * half == pytest.approx(whole, abs=2)


def test_minutes_follow_the_tighter_limit_of_the_busiest_model() -> None:
    """Models are called beside each other; without a limit nothing is said of time."""
    rows = [
        Estimate("explain", SONNET, 100, 0, 40_000, 0, 10_000, 0, 0, 0, 0),
        Estimate("simulate", LUNA, 300, 0, 6_000, 0, 3_000, 0, 0, 0, 0),
    ]
    assert minutes(rows, None, None) is None
    assert minutes(rows, 60, None) == pytest.approx(5)
    assert minutes(rows, 60, 5_000) == pytest.approx(10)
