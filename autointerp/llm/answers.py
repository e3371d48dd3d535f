"""Between a provider's body, the stored row and what the pipeline gets."""

import json
import zlib

from autointerp.llm.faults import Fault
from autointerp.llm.keys import redact, redact_known
from autointerp.llm.prices import NANO, Prices, price_data
from autointerp.llm.provider import Answer, Provider, Sent
from autointerp.llm.tables import Stored
from autointerp.records.call import Reply, Request, Usage
from autointerp.records.explanation import Failure
from autointerp.seams import BudgetReached


def pack(sent: Sent, answer: Answer, cost: int) -> Stored:
    """The row that is stored; any key that the provider echoes is hidden."""
    body = redact_known(json.dumps(sent.body, ensure_ascii=False))
    return Stored(answer.status, zlib.compress(body.encode()), cost, answer.served, sent.request_id, price_data())


def charge(prices: Prices, model: str, answer: Answer, bound: int, *, batch: bool = False) -> int:
    """Nano-dollars that `answer` cost; its `bound` where the provider's report says nothing, or contradicts itself."""
    cost = prices.cost(model, answer.usage, batch=batch) if answer.usage else None
    return bound if cost is None else cost


def above_bound(model: str, cost: int, bound: int) -> BudgetReached | None:
    """Why a run stops where a bill is above its bound: no budget can hold against it."""
    if cost <= bound:
        return None
    dollars = f"{cost / NANO:.6f} dollars, where at most {bound / NANO:.6f} were possible"
    return BudgetReached(f"{model} billed {dollars}: no budget can hold against it.")


def outcome(request: Request, answer: Answer, cost: int) -> Reply | Failure:
    """What a call that was just paid for comes to."""
    match answer.status:
        case "answered":
            text = redact_known(answer.text)
            return Reply(text, answer.usage or Usage(0, 0, 0, 0), cost, answer.served, cached=False)
        case "refusal":
            return Failure(request.stage, "refusal", redact(f"The model refuses: {answer.text}"))
        case "truncated":
            return Failure(request.stage, "truncated", redact(f"The answer was cut off: ...{answer.text[-200:]}"))
        case "empty":
            return Failure(request.stage, "empty", "The answer is empty.")


def recall(provider: Provider, request: Request, stored: Stored) -> Reply | Failure:
    """What a stored answer says, read anew."""
    try:
        answer = provider.read(json.loads(zlib.decompress(stored.body)))
    except Fault as fault:
        return Failure(request.stage, fault.kind, fault.message)
    said = outcome(request, answer, stored.cost)
    return as_cached(said)


def as_cached(outcome: Reply | Failure) -> Reply | Failure:
    """The same, at no cost now."""
    match outcome:
        case Reply(text, usage, cost, served):
            return Reply(text, usage, cost, served, cached=True)
        case Failure():
            return outcome
