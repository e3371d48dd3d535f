"""Both providers through their real SDKs: every fault, over a mocked network."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import httpx2
import pytest
import respx

from autointerp.llm.faults import PATIENCE, Fault, retrying
from autointerp.llm.limits import RateLimits
from autointerp.records.call import Reply
from autointerp.records.explanation import Failure
from autointerp.seams import Refused
from tests.autointerp.fake_time import run_in_fake_time
from tests.autointerp.llm_parts import attempts, budget, request
from tests.autointerp.provider_cases import CASES, Case, ask


@pytest.fixture(params=CASES, ids=["anthropic", "openai"])
def case(request: pytest.FixtureRequest) -> Case:
    """Each provider in turn, with connections of its own."""
    chosen: Case = request.param
    return chosen.reopened()


@pytest.mark.parametrize(
    ("status", "headers", "state", "kind"),
    [
        (429, {"retry-after": "30"}, "released", "rate_limited"),
        (529, {}, "released", "server_error"),
        (500, {}, "unknown", "server_error"),
        (408, {}, "unknown", "timeout"),
        (409, {}, "released", "server_error"),
    ],
)
def test_a_transient_status_is_retried(
    case: Case, tmp_path: Path, httpx2_mock: respx.Router, status: int, headers: dict[str, str], state: str, kind: str
) -> None:
    """By us, once per attempt, after the wait that was asked for; the first attempt is charged by its status."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    refusal = httpx.Response(status, json=dict(case.error), headers=headers)
    route = httpx2_mock.post(case.url).mock(side_effect=[refusal, httpx.Response(200, json=case.body())])
    assert isinstance(ask(case, tmp_path, sleep=sleep), Reply)
    assert route.call_count == 2
    assert len(waits) == 1 and waits[0] >= float(headers.get("retry-after", "0"))
    assert [attempt[:2] for attempt in attempts(tmp_path)] == [(state, kind), ("settled", "answered")]


@pytest.mark.parametrize(
    ("error", "state", "kind"),
    [
        (httpx2.ReadTimeout("silence"), "unknown", "timeout"),
        (httpx2.ReadError("reset by peer"), "unknown", "connection"),
        (httpx2.RemoteProtocolError("disconnected"), "unknown", "connection"),
        (httpx2.ConnectError("refused"), "released", "connection"),
        (httpx2.ConnectTimeout("nobody there"), "released", "timeout"),
    ],
)
def test_a_broken_connection_is_charged_only_after_sending(
    case: Case, tmp_path: Path, httpx2_mock: respx.Router, error: Exception, state: str, kind: str
) -> None:
    """Before it nothing can have been billed."""
    httpx2_mock.post(case.url).mock(side_effect=[error, httpx.Response(200, json=case.body())])
    assert isinstance(ask(case, tmp_path), Reply)
    assert attempts(tmp_path)[0][:2] == (state, kind)


@pytest.mark.parametrize("content", [b'{"content": [', b"[]", b"{}", b"<html>bad gateway</html>"])
def test_a_malformed_success_is_charged_and_retried(
    case: Case, tmp_path: Path, httpx2_mock: respx.Router, content: bytes
) -> None:
    """It may have been billed; the next attempt may be whole."""
    bad = httpx.Response(200, content=content, headers={"content-type": "application/json"})
    httpx2_mock.post(case.url).mock(side_effect=[bad, httpx.Response(200, json=case.body())])
    assert isinstance(ask(case, tmp_path), Reply)
    assert attempts(tmp_path)[0][:2] == ("unknown", "server_error")


def test_an_overload_inside_a_success_is_not_charged(case: Case, tmp_path: Path, httpx2_mock: respx.Router) -> None:
    """Some servers say so with status 200."""
    overload = httpx.Response(200, json={"type": "error", "error": {"type": "overloaded_error"}})
    httpx2_mock.post(case.url).mock(side_effect=[overload, httpx.Response(200, json=case.body())])
    assert isinstance(ask(case, tmp_path), Reply)
    assert attempts(tmp_path)[0][:2] == ("released", "server_error")


@pytest.mark.parametrize("status", [400, 422])
def test_a_bad_request_fails_its_item_only(case: Case, tmp_path: Path, httpx2_mock: respx.Router, status: int) -> None:
    """Once, without charge, and the run goes on."""
    route = httpx2_mock.post(case.url).respond(status, json=dict(case.error))
    said = ask(case, tmp_path)
    assert isinstance(said, Failure) and said.kind == "bad_request" and "told you" in said.message
    assert route.call_count == 1
    assert budget(tmp_path).committed == 0


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (413, "Request exceeds the maximum size"),
        (400, "prompt is too long: 207791 tokens > 200000 maximum"),
        (400, "input length and `max_tokens` exceed context limit: 198981 + 21333 > 200000"),
        (400, "This model's maximum context length is 4097 tokens. However, your messages resulted in 4301 tokens."),
        (400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
        (422, '{"code": "context_length_exceeded"}'),
    ],
)
def test_a_prompt_that_does_not_fit_is_called_so(
    case: Case, tmp_path: Path, httpx2_mock: respx.Router, status: int, message: str
) -> None:
    """However the server words it: once, without charge."""
    route = httpx2_mock.post(case.url).respond(status, json={"error": {"type": "e", "message": message}})
    said = ask(case, tmp_path)
    assert isinstance(said, Failure) and said.kind == "too_long"
    assert route.call_count == 1
    assert budget(tmp_path).committed == 0


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "authentication_error", "invalid key"),
        (403, "permission_error", "not yours"),
        (402, "billing_error", "pay first"),
        (404, "not_found_error", "no such model"),
        (400, "invalid_request_error", "Your credit balance is too low"),
        (429, "insufficient_quota", "You exceeded your current quota"),
    ],
)
def test_what_every_call_would_meet_stops_the_run(
    case: Case, tmp_path: Path, httpx2_mock: respx.Router, status: int, code: str, message: str
) -> None:
    """Key, credit, model: asked once, nothing charged, the provider's words shown."""
    error = {"type": "error", "error": {"type": code, "code": code, "message": message}}
    route = httpx2_mock.post(case.url).respond(status, json=error)
    with pytest.raises(Refused, match=message):
        ask(case, tmp_path)
    assert route.call_count == 1
    assert budget(tmp_path).committed == 0


@pytest.mark.parametrize("headers", [{"retry-after": "601"}, {"retry-after": "1", "x-should-retry": "false"}])
def test_a_wait_that_is_too_long_or_useless_is_not_begun(
    case: Case, tmp_path: Path, httpx2_mock: respx.Router, headers: dict[str, str]
) -> None:
    """The item fails at once, named; nobody sleeps for an hour."""
    route = httpx2_mock.post(case.url).respond(429, json=dict(case.error), headers=headers)
    said = ask(case, tmp_path)
    assert isinstance(said, Failure) and said.kind == "rate_limited"
    assert route.call_count == 1


@pytest.mark.parametrize(("year", "calls"), [(2001, 2), (2999, 1)])
def test_a_retry_date_is_a_wait(case: Case, tmp_path: Path, httpx2_mock: respx.Router, year: int, calls: int) -> None:
    """Retry-After may be a date: one that has passed asks for nothing, one far away for too much."""
    date = {"retry-after": f"Tue, 01 Jan {year} 00:00:00 GMT"}
    refusal = httpx.Response(429, json=dict(case.error), headers=date)
    route = httpx2_mock.post(case.url).mock(side_effect=[refusal, httpx.Response(200, json=case.body())])
    ask(case, tmp_path)
    assert route.call_count == calls


@pytest.mark.parametrize(("message", "address_named"), [("no such model", False), ("Not Found", True)])
def test_a_path_that_is_not_there_names_the_address(
    case: Case, tmp_path: Path, httpx2_mock: respx.Router, message: str, *, address_named: bool
) -> None:
    """A wrong base URL and an unknown model are both met by every call, and mended in different places."""
    httpx2_mock.post(case.url).respond(404, json={"error": {"type": "not_found_error", "message": message}})
    with pytest.raises(Refused, match=message) as stop:
        ask(case, tmp_path)
    assert (case.provider.address in str(stop.value)) == address_named


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
@pytest.mark.parametrize("headers", [{"x-should-retry": "false"}, {"retry-after": "601"}])
def test_the_provider_may_forbid_another_attempt(
    case: Case, tmp_path: Path, httpx2_mock: respx.Router, status: int, headers: dict[str, str]
) -> None:
    """For every status that is otherwise tried again; or ask for more patience than we have."""
    route = httpx2_mock.post(case.url).respond(status, json=dict(case.error), headers=headers)
    assert isinstance(ask(case, tmp_path), Failure)
    assert route.call_count == 1


def test_no_attempt_is_made_after_twenty_minutes() -> None:
    """The waits that a provider asks for add up; the call fails with what it met last."""
    calls: list[float] = []

    async def limited() -> None:
        calls.append(time.monotonic())
        raise Fault("rate_limited", "", again=True, retry_after=500.0)

    async def main() -> None:
        with pytest.raises(Fault):
            await retrying(lambda _: None)(limited)

    run_in_fake_time(main)
    assert len(calls) == 3
    assert calls[-1] <= PATIENCE


@pytest.mark.parametrize("status", [200, 429])
def test_limits_are_learnt_from_whatever_comes_back(case: Case, httpx2_mock: respx.Router, status: int) -> None:
    """The headers of an answer and of a refusal reach the model's throttles."""
    headers = {"anthropic-ratelimit-requests-limit": "50", "x-ratelimit-limit-requests": "50"}
    httpx2_mock.post(case.url).respond(status, json=case.body() if status == 200 else dict(case.error), headers=headers)

    async def main() -> Mapping[str, str]:
        try:
            return (await case.provider.send(request(model=case.model))).headers
        except Fault as fault:
            return fault.headers
        finally:
            await case.provider.aclose()

    limits = RateLimits()
    limits.learn(asyncio.run(main()))
    assert limits._requests is not None
    assert limits._requests.period * 40 == pytest.approx(60, rel=0.01)
