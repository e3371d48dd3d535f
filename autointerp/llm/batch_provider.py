"""What a provider's batch API is: many requests at once, at half price, answered within a day."""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from autointerp.llm.faults import Fault, malformed, sdk_fault, status_fault
from autointerp.llm.provider import Body, Sent

Standing: TypeAlias = Literal["running", "ended", "gone"]
"""Whether results can be fetched: not yet, now, never again."""


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch as the provider sees it."""

    id: str
    """The provider's name for it."""
    standing: Standing
    """Whether its results can be fetched."""
    requests: int = 0
    """How many it has; 0 where the provider does not say."""
    done: int = 0
    """How many of them it has dealt with."""
    submission: str = ""
    """The name that we gave it; empty where the provider keeps none."""
    fault: Fault | None = None
    """Why it was refused as a whole, unbilled; None where it was not."""


@runtime_checkable
class BatchProvider(Protocol):
    """Sends batches to one address. Every method raises `Fault`."""

    async def submit(self, submission: str, bodies: Mapping[str, Body]) -> str:
        """Send `bodies`, as `Provider.render` makes them, by name; `submission` names the whole. Its remote name."""
        ...

    async def status(self, remote: str) -> RemoteBatch:
        """How the batch stands."""
        ...

    async def results(self, remote: str) -> Sequence[tuple[str, Sent | Fault]]:
        """What an ended batch came to, by name, in any order; a `Fault` was not billed. Empty where it is gone."""
        ...

    async def recent(self, since: float) -> Sequence[RemoteBatch]:
        """All batches that were made after `since` (Unix time, seconds)."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


@contextmanager
def as_faults(sdk_error: type[Exception]) -> Generator[None]:
    """Raises what goes wrong inside, as an SDK with `sdk_error` words it, as the `Fault` that it is."""
    from httpx2 import HTTPError

    try:
        yield
    except (sdk_error, HTTPError) as error:
        raise sdk_fault(error) from None
    except ValueError as error:  # a success that is no JSON
        raise malformed(str(error)) from None


def read_lines(text: str, read: Callable[[Body], tuple[str, Sent | Fault]]) -> list[tuple[str, Sent | Fault]]:
    """What each line of JSON says; one that cannot be read is left out, and its request counts as forgotten."""
    said: list[tuple[str, Sent | Fault]] = []
    for line in text.splitlines():
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            said.append(read(json.loads(line)))
    return said


def item_fault(status: int, error: Mapping[str, Any]) -> Fault:
    """What one failed request of a batch means, by the status it would have had alone; providers bill none of them."""
    return replace(status_fault(status, {}, json.dumps(error)), billed=False)


def never_run(kind: Literal["expired", "cancelled"]) -> Fault:
    """A request that its batch never came to."""
    return Fault(kind, f"The batch ended before the request was answered: {kind}.", again=True)
