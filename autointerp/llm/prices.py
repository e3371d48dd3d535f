"""What calls cost, in whole nano-dollars: bounds before, costs after."""

import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from autointerp.llm.rates import listed_price
from autointerp.records.call import Request, Usage
from sae.errors import UserError

NANO = 10**9
"""Nano-dollars in a dollar."""
OVERHEAD = 200
"""Input tokens per call that no text of ours accounts for: roles, separators, the provider's own words."""
BYTES_PER_TOKEN = 4
"""Expected, never relied on: bounds count one token per byte."""
WRITTEN_SHARE = 0.5
"""Share of `max_tokens` that an answer is expected to use."""


@dataclass(frozen=True, slots=True)
class GivenPrice:
    """A price by the user, for models that the price table lacks."""

    input: Decimal
    """Dollars per million input tokens, cached or not."""
    output: Decimal
    """Dollars per million output tokens."""


def parse_price(text: str) -> GivenPrice:
    """``IN,OUT`` in dollars per million tokens; raises `UserError`."""
    try:
        first, second = (Decimal(part.strip()) for part in text.split(","))
    except (ValueError, InvalidOperation):
        first = second = Decimal(-1)
    if not (first.is_finite() and second.is_finite()) or min(first, second) < 0:
        what = f"--price cannot be {text!r}."
        raise UserError(what, do="Give dollars per million tokens as IN,OUT, such as 0.1,0.5.", usage=True)
    return GivenPrice(first, second)


def parse_dollars(text: str) -> int:
    """Dollars as text to nano-dollars, rounded down; raises `UserError`."""
    try:
        amount = Decimal(text.strip().lstrip("$"))
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise UserError(f"--max-cost cannot be {text!r}.", do="Give dollars, such as 0.50.", usage=True)
    return math.floor(amount * NANO)


def price_data() -> str:
    """Where prices come from, for the manifest."""
    from genai_prices import __version__

    return f"genai-prices {__version__}"


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of the bundled table (no network), and one for the models that it lacks."""

    given: GivenPrice | None = None
    """``--price``; None makes an unknown model an error."""

    def require(self, model: str) -> None:
        """Raises `UserError` where `model` (``provider/name``) has no price; one of ``local/`` costs nothing."""
        self._price(model, Usage(1, 0, 0, 1))

    def bound(self, request: Request, *, batch: bool = False) -> int:
        """Nano-dollars that one attempt cannot exceed where a token is a byte or more.

        (UTF-8 bytes of all text and schema + `OVERHEAD`) x the dearer of input and cache write + max_tokens x output.
        `batch` takes the price of the provider's batch API here and below: half, or the full one where the table has
        no other.
        """
        read = request_bytes(request) + OVERHEAD
        plain = Usage(read, 0, 0, request.max_tokens)
        written = Usage(read, 0, read, request.max_tokens)
        return max(self._price(request.model, plain, batch), self._price(request.model, written, batch))

    def cost(self, model: str, usage: Usage, *, batch: bool = False) -> int | None:
        """Nano-dollars for the `usage` that was reported, rounded up; None where it contradicts itself."""
        try:
            return self._price(model, usage, batch)
        except ValueError:
            return None

    def expected(self, request: Request, *, prefix_cached: bool = False, batch: bool = False) -> int:
        """Nano-dollars that a call will probably cost, with or without its system text read from the prompt cache."""
        read = expected_input(request)
        cached = len(request.system.encode()) // BYTES_PER_TOKEN if prefix_cached else 0
        return self._price(request.model, Usage(read, cached, 0, expected_output(request)), batch)

    def _price(self, model: str, usage: Usage, batch: bool = False) -> int:
        provider, _, name = model.partition("/")
        if provider == "local":
            return 0
        try:
            return math.ceil(listed_price(provider, name, usage, batch=batch) * NANO)
        except LookupError:
            if self.given is None:
                raise UserError(
                    f"The price of {model} is not known.",
                    f"{price_data()} does not have it, and without a price no budget could hold.",
                    "Give --price IN,OUT in dollars per million tokens; 0,0 for a server of your own.",
                ) from None
        per_million = self.given.input * usage.input_tokens + self.given.output * usage.output_tokens
        return math.ceil(per_million * NANO / 10**6)


def request_bytes(request: Request) -> int:
    """UTF-8 bytes of all text and schema: no byte-level tokenizer makes more tokens of them."""
    texts = request.system, request.user, request.schema or ""
    return sum(len(text) if text.isascii() else len(text.encode()) for text in texts)


def expected_input(request: Request) -> int:
    """Input tokens that a request will probably have."""
    return math.ceil(request_bytes(request) / BYTES_PER_TOKEN)


def expected_output(request: Request) -> int:
    """Output tokens that an answer will probably have."""
    return math.ceil(request.max_tokens * WRITTEN_SHARE)
