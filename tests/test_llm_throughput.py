"""The parts of the throughput benchmark that need neither a server nor delphi."""

import json
from itertools import islice
from typing import Any

from autointerp.explain.llm import read_explanation, render_explain
from autointerp.llm.openai import OpenAIProvider
from autointerp.prompts import load_prompt
from autointerp.records.call import Reply, Request, Usage
from autointerp.records.explanation import Evidence, Explanation
from autointerp.records.trial import Prediction, Trial
from autointerp.simulate.llm import read_predictions
from autointerp.simulate.packs import packs
from benchmarks.llm_answers import answer
from benchmarks.llm_tables import calls_table, ratio_table, summarise, throttle_table, throughput_table
from benchmarks.llm_units import PROTOCOL, RECORDS, RecordSource, synthetic_records
from benchmarks.our_side import simulations


def row(side: str, work: str, at_once: int, seconds: float) -> dict[str, Any]:
    """Ten units in `seconds`."""
    counts = {"cpu": 1.0, "requests": 40, "characters": 12340, "unread": 0}
    return {"side": side, "work": work, "at_once": at_once, "units": 10, "seconds": seconds, **counts}


def replied(request: Request) -> Reply:
    """The benchmark's answer to `request`, as a reply."""
    body = OpenAIProvider("none", "http://127.0.0.1:9/v1").render(request)
    return Reply(answer(body), Usage(0, 0, 0, 0), 0, "", cached=False)


def delphi_answer(text: str) -> str:
    """The benchmark's answer to a prompt of delphi's."""
    return answer({"model": "m", "messages": [{"role": "user", "content": text}]})


def test_units_have_the_protocols_sizes() -> None:
    """Every unit gives 49 excerpts to show and 60 to ask, 9 tokens each, half of the latter firing."""
    records = synthetic_records(2)
    for record in records:
        evidence = PROTOCOL.evidence(record)
        trial = PROTOCOL.scorer().pose(record, Explanation("", ""), RecordSource(records))
        assert isinstance(evidence, Evidence)
        assert isinstance(trial, Trial)
        assert (len(evidence.excerpts), len(trial.items)) == (49, 60)
        assert {len(excerpt.tokens) for excerpt in (*evidence.excerpts, *trial.items)} == {9}
        assert sum(trial.truth.max(axis=1) > 0) == 30


def test_units_are_the_same_in_every_process() -> None:
    """A record is not changed by its way through JSON, and depends on the seed alone."""
    records = synthetic_records(2)
    assert RECORDS.validate_json(RECORDS.dump_json(records)) == records
    assert synthetic_records(3)[:2] == records
    assert synthetic_records(2, seed=1) != records


def test_our_readers_read_every_answer() -> None:
    """Explanations and predictions come back whole, so that nothing is asked twice."""
    [record] = records = synthetic_records(1)
    evidence = PROTOCOL.evidence(record)
    assert isinstance(evidence, Evidence)
    asked = render_explain(evidence, "openai/gpt-6-luna", load_prompt("explain", "v1"))
    assert isinstance(read_explanation(replied(asked), "m"), Explanation)
    trial = PROTOCOL.scorer().pose(record, Explanation("", ""), RecordSource(records))
    assert isinstance(trial, Trial)
    for request, items in zip(islice(simulations(records, "openai"), 3), packs(trial.items), strict=True):
        assert all(isinstance(each, Prediction) for each in read_predictions(replied(request), items))


def test_simulations_are_all_different() -> None:
    """No call is answered from the store, however many are asked."""
    requests = list(islice(simulations(synthetic_records(1), "openai"), 9))
    assert len({request.user for request in requests}) == 9


def test_delphi_gets_its_three_forms() -> None:
    """A bit per example, a level per token, or an explanation behind its mark."""
    bits = json.loads(delphi_answer("Latent explanation: x\n\nText examples:\n\nExample 0: a\nExample 1: b\n"))
    assert len(bits) == 2
    assert set(bits) <= {0, 1}
    cells = [{"token": "a", "activation": None}, {"token": "b", "activation": None}]
    said = json.loads(delphi_answer(json.dumps({"to_find": "x", "document": "ab", "activations": cells})))
    assert [cell["token"] for cell in said["activations"]] == ["a", "b"]
    assert all(0 <= cell["activation"] <= 10 for cell in said["activations"])
    assert delphi_answer("\n<<a>> b\n").startswith("[EXPLANATION]: ")


def test_ratios_are_of_medians_and_of_the_best() -> None:
    """Each setting counts by its median round; the best setting of either side is compared with the other's best."""
    rows = [row("ours", "simulate", 32, seconds) for seconds in (1.0, 2.0, 50.0)]
    rows += [row("ours", "simulate", 10, 4.0)]
    rows += [row("delphi", work, at_once, 40.0 / at_once) for work in ("classify", "simulate") for at_once in (1, 10)]
    figures = summarise(rows)
    assert str(figures["ours", "simulate", 32]["rate"]) == "5 (0.2 to 10)"
    table = ratio_table(figures)
    assert "| ours by default, delphi's command line (detection + fuzzing) | 20.0 | >= 20 |" in table
    assert "| best of ours, best of delphi's (detection + fuzzing) | 2.0 | >= 5 |" in table
    assert "| 10 units at once, both (simulation) | 1.0 |  |" in table
    line = "| ours: explain + simulate | 32 (default) | 5 (0.2 to 10) | 4 | 1,234 | 0.1 (0.1 to 0.1) | 0 |"
    assert line in throughput_table(figures)


def test_calls_and_throttle_have_a_line_each() -> None:
    """CPU per call is compared by medians; the throttle's line names the refusals."""
    rows = [
        {"side": side, "sdk": "openai", "at_once": 64, "ms": ms}
        for side, all_ms in (("bare", (2.0, 2.0, 9.0)), ("ours", (2.2, 2.1, 7.0)))
        for ms in all_ms
    ]
    assert "| openai | 64 | 2 (2 to 9) | 2.2 (2.1 to 7) | 1.10 | <= 1.15 |" in calls_table(rows)
    spent = {"share": 0.98, "whole": 0.97, "calls": 6000, "limited": 0, "start": 30.0, "seconds": 90.0}
    assert "| 4,000/min | 98.0% | 97.0% | 6000 | 0 |" in throttle_table(spent, 4000)
