"""The whole run against providers that fail three requests in ten, in every way that they can."""

import contextlib
import io
import json
import logging
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from autointerp import ending
from autointerp.llm import client as llm_client
from autointerp.llm.faults import retrying
from autointerp.records.explanation import Failure
from autointerp.records.trial import Score
from autointerp.report.tables import read_outcomes
from tests.autointerp.llm_parts import no_sleep
from tests.runs import MODELS, SITE, arguments, command, values
from tests.sae import tiny
from tests.servers.faults import BAD_ANSWERS, BROKEN, REFUSALS, even
from tests.servers.loopback import Server, default_answer, serve

SHARE = 0.3
SECRET = "unmistakable-secret-0123456789"


@dataclass(frozen=True)
class Wreck:
    """A run among faults, and everything that it left."""

    code: int
    directory: Path
    server: Server
    said: str
    """Standard output, standard error and every record of every log."""


@contextlib.contextmanager
def hurried(folder: Path, **settings: object) -> Iterator[tuple[Server, pytest.MonkeyPatch]]:
    """A server with `settings` that both SDKs are led to, keys that may not leak, no waits and no figures."""
    with pytest.MonkeyPatch.context() as patch, serve(bill=folder / "bill.jsonl", silence=0.01, **settings) as server:  # type: ignore[arg-type]
        for name, value in (("ANTHROPIC", server.url), ("OPENAI", f"{server.url}/v1")):
            patch.setenv(f"{name}_BASE_URL", value)
            patch.setenv(f"{name}_API_KEY", f"{SECRET}-{name}")
        patch.setattr(llm_client, "retrying", lambda on_retry, *_: retrying(on_retry, no_sleep))
        patch.setattr(ending, "draw", lambda *_: None)
        yield server, patch


def wreck(folder: Path, flags: list[str | Path]) -> Wreck:
    """Run with `flags`; the server puts the key that it was sent into answers and errors."""
    said = io.StringIO()
    handler, root = logging.StreamHandler(said), logging.getLogger()
    level = root.level

    def answer(body: dict[str, object]) -> str:
        return default_answer(body).replace("tokens", f"{SECRET}-OPENAI {SECRET}-ANTHROPIC")

    with hurried(folder, shares=even(SHARE), answers=answer, echo=True) as (server, _):
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = command("run", *flags)
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
    return Wreck(code, folder / "run", server, said.getvalue())


@pytest.fixture(scope="module")
def small(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Wreck:
    """Sixteen features and as many neurons; a bad answer is not asked again."""
    folder = tmp_path_factory.mktemp("chaos")
    return wreck(
        folder, arguments(place, folder / "run", "--features", "0:16", "--baseline", "neurons", "--draws", "1", *MODELS)
    )


def nothing_is_lost(done: Wreck, units: int) -> None:
    """Every unit ended, scored or as a failure with a name, and the tables say so per arm."""
    outcomes = read_outcomes(done.directory).outcomes
    assert len(outcomes) == units
    failures = [each.result for each in outcomes if isinstance(each.result, Failure)]
    assert len(failures) + sum(isinstance(each.result, Score) for each in outcomes) == units
    assert all(each.stage and each.kind and each.message for each in failures)
    assert {each.stage for each in failures} >= {"explain"}
    assert done.code == 3, "results, but some units failed"
    summary = json.loads((done.directory / "summary.json").read_text())
    table = (done.directory / "summary.md").read_text().partition("## Units")[2]
    for arm in summary["arms"]:
        funnel = arm["funnel"]
        mine = [each for each in outcomes if each.unit.arm == arm["info"]["label"]]
        named = [each.result.kind for each in mine if isinstance(each.result, Failure)]
        assert funnel["failed"] == {kind: named.count(kind) for kind in named}
        assert funnel["asked"] == funnel["counted"] == len(mine)
        assert funnel["scored"] + funnel["undefined"] + len(named) == len(mine)
        assert all(kind in table for kind in named)
    [contrast] = summary["contrasts"]
    mean, bounds = contrast["differences"]["spearman"]["mean"], contrast["bounds"]
    assert sum(bounds["missing"]) == sum(arm["funnel"]["counted"] - arm["funnel"]["scored"] for arm in summary["arms"])
    assert bounds["low"] < mean["value"] < bounds["high"]


def test_every_unit_ends_scored_or_as_a_named_failure(small: Wreck) -> None:
    """With three requests in ten failing none is dropped, and the bounds say what the missing ones could change."""
    assert sum(small.server.injected.values()) / small.server.calls == pytest.approx(SHARE, abs=0.1)
    nothing_is_lost(small, 2 * 16)


def test_the_bill_is_covered_in_chaos(small: Wreck) -> None:
    """What was billed, lost answers included, is not above what was committed."""
    with contextlib.closing(sqlite3.connect(small.directory.parent / "answers.sqlite")) as store:
        [(committed,)] = store.execute("SELECT committed FROM budget").fetchall()
    assert 0 < sum(line["nano"] for line in small.server.billed()) <= committed


def test_no_key_is_written_or_said(small: Wreck) -> None:
    """Files, stored answers unpacked, output and logs at their most talkative: the keys are in none of them."""
    folder = small.directory.parent
    texts = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    with contextlib.closing(sqlite3.connect(folder / "answers.sqlite")) as store:
        bodies = [zlib.decompress(body) for (body,) in store.execute("SELECT body FROM answer")]
    assert any(b"[key]" in body for body in bodies), "the server did put keys into answers"
    assert "httpx2" in small.said or "HTTP" in small.said
    for text in [*texts, *bodies, small.said.encode()]:
        assert SECRET.encode() not in text


@pytest.mark.slow
def test_chaos_over_256_features_and_256_neurons(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same at size, with every kind of fault injected."""
    monkeypatch.setattr(tiny, "NEURONS", 256)
    subject = tiny.gpt2_folder(tmp_path / "subject", layers=1, context=32)
    own = ["--subject", subject, "--site", SITE, "--context", "32", "--corpus", place / "corpus.jsonl"]
    sae = tmp_path / "sae"
    assert command("train", *own, "--tokens", "20k", "--d-sae", "256", "--out", sae) == 0
    flags = [*own, "--sae", sae, "--tokens", "40k", "--features", "0:256", "--baseline", "neurons", *MODELS]
    done = wreck(tmp_path, [*flags, "--out", tmp_path / "run", "--concurrency", "64"])
    assert set(done.server.injected) == {*REFUSALS, *BROKEN, *BAD_ANSWERS}
    nothing_is_lost(done, 512)


def test_half_a_dollar_is_not_exceeded_at_concurrency_256(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the server's own bill; what was scored until then is there.

    It stops where the next call (at most ten cents) does not fit. How much of what is committed was billed depends on
    which calls broke off: those stay charged at their bound.
    """
    flags = ["--features", "0:24", "--baseline", "neurons", "--max-cost", "0.50", "--concurrency", "256"]
    dear = ["--explainer", "anthropic/claude-opus-5-5", "--simulator", "openai/gpt-6.1-sol"]
    with hurried(tmp_path, shares=even(0.1)) as (server, _):
        code = command("run", *arguments(place, tmp_path / "run", *flags, *dear))
        billed = sum(line["nano"] for line in server.billed())
    assert code == 4, capsys.readouterr().err
    assert 0 < billed <= 0.5e9
    with contextlib.closing(sqlite3.connect(tmp_path / "answers.sqlite")) as store:
        [(committed,)] = store.execute("SELECT committed FROM budget").fetchall()
    assert 0.4e9 < committed <= 0.5e9
    assert values(tmp_path / "run")
