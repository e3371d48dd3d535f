"""Both batch APIs through their real SDKs, over a mocked network: what is sent, and what each answer means."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest
import respx

from autointerp.llm.anthropic_batches import AnthropicBatches
from autointerp.llm.batch_provider import BatchProvider, RemoteBatch
from autointerp.llm.faults import Fault
from autointerp.llm.openai_batches import OpenAIBatches
from autointerp.llm.provider import Sent

CLAUDE, GPT = "http://claude.test", "http://gpt.test/v1"
ONE = f"{CLAUDE}/v1/messages/batches/msgbatch_1"
COUNTS = {"processing": 0, "succeeded": 1, "errored": 2, "canceled": 3, "expired": 4}
MADE = "2026-11-21T00:00:00Z"


def claude() -> AnthropicBatches:
    """Anthropic's API at a mocked address."""
    return AnthropicBatches("key", CLAUDE)


def gpt() -> OpenAIBatches:
    """OpenAI's."""
    return OpenAIBatches("key", GPT)


def message_batch(**changes: Any) -> dict[str, Any]:
    """What Anthropic says of a batch that has ended."""
    said = {"id": "msgbatch_1", "type": "message_batch", "processing_status": "ended", "request_counts": COUNTS}
    return said | {"created_at": MADE, "expires_at": MADE, "results_url": f"{ONE}/results"} | changes


def openai_batch(**changes: Any) -> dict[str, Any]:
    """What OpenAI says of a batch that has ended."""
    said = {"id": "batch_1", "object": "batch", "status": "completed", "created_at": 1000, "input_file_id": "f"}
    said |= {"endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {"submission": "ours"}}
    return said | {"request_counts": {"total": 5, "completed": 5, "failed": 0}} | changes


def lines(*each: Mapping[str, Any] | str) -> str:
    """A file of JSON lines."""
    return "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in each)


def talk(api: BatchProvider, call: Any) -> Any:
    """What one call brings."""

    async def main() -> object:
        try:
            return await call
        finally:
            await api.aclose()

    return asyncio.run(main())


def test_what_is_sent_to_anthropic(httpx2_mock: respx.Router) -> None:
    """Each body under its name, the system text marked for the prompt cache."""
    route = httpx2_mock.post(f"{CLAUDE}/v1/messages/batches").respond(json=message_batch())
    api = claude()
    assert (
        talk(api, api.submit("ours", {"a1": {"system": "s", "max_tokens": 3}, "b2": {"max_tokens": 4}})) == "msgbatch_1"
    )
    marked = [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]
    assert json.loads(route.calls.last.request.content) == {
        "requests": [
            {"custom_id": "a1", "params": {"system": marked, "max_tokens": 3}},
            {"custom_id": "b2", "params": {"max_tokens": 4}},
        ]
    }


def test_what_is_sent_to_openai(httpx2_mock: respx.Router) -> None:
    """A file of requests, then a batch that has our name."""
    file = {"id": "file_1", "object": "file", "bytes": 1, "created_at": 0, "filename": "x", "purpose": "batch"}
    upload = httpx2_mock.post(f"{GPT}/files").respond(json=file)
    make = httpx2_mock.post(f"{GPT}/batches").respond(json=openai_batch())
    api = gpt()
    assert talk(api, api.submit("ours", {"a1": {"model": "m"}})) == "batch_1"
    line = {"custom_id": "a1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m"}}
    assert json.dumps(line).encode() in upload.calls.last.request.content
    sent = json.loads(make.calls.last.request.content)
    assert (sent["input_file_id"], sent["metadata"]) == ("file_1", {"submission": "ours"})


@pytest.mark.parametrize("reply", [httpx2.Response(500), httpx2.ReadTimeout("silence"), httpx2.Response(200, text="{")])
def test_an_upload_is_never_in_doubt_but_a_batch_is(httpx2_mock: respx.Router, reply: Any) -> None:
    """Files cost nothing; whether a batch was made must be looked up."""
    behave = {"side_effect": reply} if isinstance(reply, Exception) else {"return_value": as_httpx(reply)}
    file = {"id": "file_1", "object": "file", "bytes": 1, "created_at": 0, "filename": "x", "purpose": "batch"}
    for broken, doubtful in (("files", False), ("batches", True)):
        httpx2_mock.post(f"{GPT}/files").respond(json=file)
        httpx2_mock.post(f"{GPT}/{broken}").mock(**behave)
        api = gpt()
        with pytest.raises(Fault) as caught:
            talk(api, api.submit("ours", {"a1": {}}))
        assert (caught.value.again, caught.value.billed) == (True, doubtful)


def as_httpx(response: httpx2.Response) -> Any:
    """As respx takes it."""
    import httpx

    return httpx.Response(response.status_code, text=response.text, headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    ("said", "standing"),
    [
        ({}, "ended"),
        ({"processing_status": "in_progress"}, "running"),
        ({"processing_status": "canceling"}, "running"),
        ({"results_url": None, "archived_at": MADE}, "gone"),
    ],
)
def test_how_a_batch_at_anthropic_stands(httpx2_mock: respx.Router, said: dict[str, Any], standing: str) -> None:
    """All its requests are counted, and those dealt with; our name is not known."""
    done = sum(COUNTS.values()) - COUNTS["processing"]
    httpx2_mock.get(ONE).respond(json=message_batch(**said))
    api = claude()
    assert talk(api, api.status("msgbatch_1")) == RemoteBatch("msgbatch_1", standing, 10, done)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "cancelling"])
def test_a_batch_at_openai_runs(httpx2_mock: respx.Router, status: str) -> None:
    """Until nothing more can change."""
    httpx2_mock.get(f"{GPT}/batches/batch_1").respond(json=openai_batch(status=status))
    api = gpt()
    assert talk(api, api.status("batch_1")) == RemoteBatch("batch_1", "running", 5, 5, "ours")


@pytest.mark.parametrize(
    ("code", "kind", "again", "stop"),
    [
        ("token_limit_exceeded", "rate_limited", True, False),
        ("billing_hard_limit_reached", "rate_limited", False, True),
        ("model_not_found", "bad_request", False, True),
        ("invalid_json_line", "bad_request", False, False),
    ],
)
def test_why_openai_refuses_a_whole_batch(
    httpx2_mock: respx.Router, code: str, kind: str, again: bool, stop: bool
) -> None:
    """A quota passes, no credit and no model stop the run; none of it is billed."""
    errors = {"object": "list", "data": [{"code": code, "message": "The model or quota says no."}]}
    httpx2_mock.get(f"{GPT}/batches/batch_1").respond(json=openai_batch(status="failed", errors=errors))
    api = gpt()
    fault = talk(api, api.status("batch_1")).fault
    assert (fault.kind, fault.again, fault.stop, fault.billed) == (kind, again, stop, False)


def test_a_batch_that_is_unknown_is_gone(httpx2_mock: respx.Router) -> None:
    """Deleted, or of another workspace: no reason to stop every later session."""
    httpx2_mock.get(ONE).respond(404, json={"type": "error", "error": {"type": "not_found_error", "message": ""}})
    httpx2_mock.get(f"{GPT}/batches/batch_1").respond(404, json={"error": {"message": ""}})
    for api, remote in ((claude(), "msgbatch_1"), (gpt(), "batch_1")):

        async def both(api: BatchProvider, remote: str) -> tuple[str, int]:
            return (await api.status(remote)).standing, len(await api.results(remote))

        assert talk(api, both(api, remote)) == ("gone", 0)


def test_what_the_results_of_anthropic_mean(httpx2_mock: respx.Router) -> None:
    """Answers as they came; failures unbilled, again where that can help; a torn line is left out."""

    def errored(kind: str) -> dict[str, Any]:
        error = {"type": "error", "error": {"type": kind, "message": "no"}, "request_id": None}
        return {"custom_id": kind, "result": {"type": "errored", "error": error}}

    content = lines(
        {"custom_id": "a", "result": {"type": "succeeded", "message": {"id": "msg_1", "content": []}}},
        {"custom_id": "b", "result": {"type": "expired"}},
        {"custom_id": "c", "result": {"type": "canceled"}},
        *map(errored, ("api_error", "overloaded_error", "invalid_request_error", "billing_error")),
        '{"custom_id": "torn',
    )
    httpx2_mock.get(ONE).respond(json=message_batch())
    httpx2_mock.get(f"{ONE}/results").respond(text=content)
    api = claude()
    said = dict(talk(api, api.results("msgbatch_1")))
    assert said.pop("a") == Sent({"id": "msg_1", "content": []}, "msg_1")
    assert {name: (fault.kind, fault.again, fault.stop, fault.billed) for name, fault in said.items()} == {
        "b": ("expired", True, False, False),
        "c": ("cancelled", True, False, False),
        "api_error": ("server_error", True, False, False),
        "overloaded_error": ("server_error", True, False, False),
        "invalid_request_error": ("bad_request", False, False, False),
        "billing_error": ("bad_request", False, True, False),
    }


def test_what_the_results_of_openai_mean(httpx2_mock: respx.Router) -> None:
    """The same, out of two files."""
    answers = lines({"custom_id": "a", "response": {"status_code": 200, "request_id": "r", "body": {"choices": []}}})
    errors = lines(
        {"custom_id": "b", "response": None, "error": {"code": "batch_expired", "message": ""}},
        {"custom_id": "c", "response": None, "error": {"code": "batch_cancelled", "message": ""}},
        {"custom_id": "d", "response": {"status_code": 500, "body": {"error": {"message": ""}}}, "error": None},
        {"custom_id": "e", "response": {"status_code": 400, "body": {"error": {"message": ""}}}, "error": None},
        {"custom_id": "f", "response": {"status_code": 429, "body": {"error": {"code": "insufficient_quota"}}}},
    )
    batch = openai_batch(status="expired", output_file_id="out", error_file_id="err")
    httpx2_mock.get(f"{GPT}/batches/batch_1").respond(json=batch)
    httpx2_mock.get(f"{GPT}/files/out/content").respond(text=answers)
    httpx2_mock.get(f"{GPT}/files/err/content").respond(text=errors)
    api = gpt()
    said = dict(talk(api, api.results("batch_1")))
    assert said.pop("a") == Sent({"choices": []}, "r")
    assert {name: (fault.kind, fault.again, fault.stop, fault.billed) for name, fault in said.items()} == {
        "b": ("expired", True, False, False),
        "c": ("cancelled", True, False, False),
        "d": ("server_error", True, False, False),
        "e": ("bad_request", False, False, False),
        "f": ("rate_limited", False, True, False),
    }


def test_only_recent_batches_are_listed(httpx2_mock: respx.Router) -> None:
    """Newest first, page by page, until they are older than asked."""
    young = [openai_batch(id=f"batch_{i}", created_at=2000 - i, metadata=None) for i in range(2)]
    page = {"object": "list", "data": [*young, openai_batch(id="old", created_at=5)], "has_more": True}
    route = httpx2_mock.get(url__startswith=f"{GPT}/batches").respond(json=page)
    api = gpt()
    found = talk(api, api.recent(1000.0))
    assert [(batch.id, batch.submission) for batch in found] == [("batch_0", "another"), ("batch_1", "another")]
    assert route.call_count == 1
