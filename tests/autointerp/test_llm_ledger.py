"""Answers that cannot be read, in the ledger: paid, named, stored."""

import asyncio
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autointerp.explain.llm import LlmExplainer
from autointerp.llm.catalog import make_providers
from autointerp.llm.client import Client
from autointerp.llm.provider import answer_key
from autointerp.prompts import load_prompt
from autointerp.records.explanation import Evidence, EvidenceExcerpt, Explanation, Failure
from autointerp.records.trial import Item, Prediction
from autointerp.report.render import render_ledger
from autointerp.simulate.llm import LlmSimulator, render_simulate
from tests.autointerp.llm_parts import budget, ledger_row, no_sleep, read_store
from tests.servers.loopback import default_answer, serve

MODEL = "openai/gpt-6-luna"
EVIDENCE = Evidence((EvidenceExcerpt((" a", " cat"), (0, 9), "top"),), (), (), top_level=9)
ITEMS = (Item((" the", " cat")), Item((" a", " dog")))
SAID = Explanation("Cats.", "someone/else")


async def judge(url: str, place: Path, run: str, *, explain: bool) -> object:
    """One stage through the whole client; every bad answer is drawn once more."""
    async with Client.open(
        place / "answers.sqlite",
        run=run,
        cap_nano=10**9,
        providers=make_providers([MODEL], f"{url}/v1"),
        sleep=no_sleep,
    ) as client:
        if explain:
            return await LlmExplainer(client, MODEL, load_prompt("explain", "v1"), arm="a").explain(EVIDENCE)
        return await LlmSimulator(client, MODEL, load_prompt("simulate", "v1"), arm="a").simulate(SAID, ITEMS)


def one_bad_item(body: Mapping[str, Any]) -> str:
    """The first item is given a level too many."""
    answer = json.loads(default_answer(dict(body)))
    answer["predictions"][0]["levels"] += "0"
    return json.dumps(answer)


def test_an_answer_that_is_drawn_again_and_read_is_counted_once(tmp_path: Path) -> None:
    """Two calls paid, one of them invalid; another session of the run counts it no second time."""
    with serve(faults=["wrong-length"]) as server:
        for _ in range(2):
            said = asyncio.run(judge(server.url, tmp_path, "run", explain=True))
            assert isinstance(said, Explanation)
    row = ledger_row(tmp_path)
    assert (row.stage, row.arm, row.calls, dict(row.failures)) == ("explain", "a", 2, {"invalid": 1})
    shown = render_ledger([row], budget(tmp_path), "md")
    assert "invalid" in shown


def test_a_pack_with_one_bad_item_is_an_invalid_answer(tmp_path: Path) -> None:
    """The items that were read are kept, the ledger names both draws, and the raw reply stays in the store."""
    with serve(answers=one_bad_item) as server:
        bad, good = asyncio.run(judge(server.url, tmp_path, "run", explain=False))  # type: ignore[misc]
        asked = render_simulate(SAID, ITEMS, MODEL, load_prompt("simulate", "v1"))
        key = answer_key(make_providers([MODEL], f"{server.url}/v1")[MODEL], asked)
    assert isinstance(bad, Failure) and bad.kind == "invalid"
    assert isinstance(good, Prediction)
    assert dict(ledger_row(tmp_path).failures) == {"invalid": 2}
    with read_store(tmp_path) as store:
        stored = store.answer(key)
    assert stored is not None and stored.status == "answered"
    assert "levels" in zlib.decompress(stored.body).decode()


def test_another_run_that_did_not_pay_does_not_count(tmp_path: Path) -> None:
    """Its ledger has what it got for nothing; the failure is in its tables."""
    with serve(faults=["wrong-length"]) as server:
        for run in ("run", "other"):
            asyncio.run(judge(server.url, tmp_path, run, explain=True))
    with read_store(tmp_path) as store:
        [row] = store.ledger("other")
    assert (row.calls, row.cached, dict(row.failures)) == (0, 2, {})
