"""Simulators that read distributions: expected levels, strict reading, real HTTP, and a model in this process."""

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split
from transformers import AutoModelForCausalLM, AutoTokenizer

from autointerp import notation
from autointerp.llm.catalog import make_batch_providers, make_providers
from autointerp.llm.client import Client
from autointerp.llm.completions import CompletionsProvider
from autointerp.llm.prices import Prices
from autointerp.llm.provider import Provider, answer_key
from autointerp.llm.scripted import ScriptedProvider
from autointerp.llm.slots import slot_text, slot_tokens
from autointerp.prompts import load_prompt
from autointerp.records.call import Reply, Request, Usage
from autointerp.records.explanation import Explanation, Failure
from autointerp.records.trial import Item, Prediction
from autointerp.simulate.logprob import SlotSimulator, read_slots, render_slots
from sae.errors import UserError
from tests.autointerp.llm_parts import CHEAP, ledger_row, no_sleep
from tests.sae.tiny import gpt2_folder, llama_folder
from tests.servers.completions import contexts, distribution, tokenize
from tests.servers.loopback import serve

PROMPT = load_prompt("slots", "v1")
EXPLANATION = Explanation("Cats:\tstrong.", "lookup")
ITEMS = (Item((" the", " cat", "\\n", "\\xe2")), Item(("?", "7", "é", " ")))
GOLDEN = Path(__file__).parent.parent / "golden" / "slots_v1.txt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 that reads bytes, long enough for the prompt."""
    return gpt2_folder(tmp_path_factory.mktemp("local"), context=8192)


def ask(
    provider: Provider, name: str, place: Path, cap: int | None = None, items: Sequence[Item] = ITEMS, **more: int
) -> list[Prediction | Failure]:
    """What the simulator makes of `items` through the whole client."""

    async def simulate() -> list[Prediction | Failure]:
        store, prices = place / "answers.sqlite", Prices() if name.startswith("local/") else CHEAP
        async with Client.open(
            store, run="run", cap_nano=cap, providers={name: provider}, prices=prices, sleep=no_sleep
        ) as client:
            return list(await SlotSimulator(client, name, PROMPT, arm="features", **more).simulate(EXPLANATION, items))

    return asyncio.run(simulate())


def reply(slots: object) -> Reply:
    """An answer that says `slots`."""
    text = slots if isinstance(slots, str) else json.dumps(slots)
    return Reply(text, Usage(0, 0, 0, 0), cost=0, served="", cached=False)


def expected(logprobs: dict[str, float]) -> float:
    """The mean digit."""
    chances = {int(token): math.exp(value) for token, value in logprobs.items() if token in "0123456789"}
    return sum(digit * chance for digit, chance in chances.items()) / sum(chances.values())


def test_the_rendered_text_is_golden() -> None:
    """The first item as a model reads it: worked examples, the explanation, one hidden level per token."""
    request = render_slots(EXPLANATION, ITEMS[:1], "slots/m", PROMPT)
    assert slot_text(request) == GOLDEN.read_text(encoding="utf-8")
    assert (request.schema, request.max_tokens) == (None, 1)


@given(st.lists(st.dictionaries(st.sampled_from("0123456789"), st.floats(0.02, 1), min_size=5), min_size=1, max_size=6))
def test_planted_distributions_give_their_expected_values(planted: list[dict[str, float]]) -> None:
    """A level is the mean of the digits under what the model says, normalised over the digits that it names."""
    item = Item(("x",) * len(planted))
    answer = reply([{digit: math.log(chance) for digit, chance in slot.items()} for slot in planted])
    means = [sum(int(d) * p for d, p in slot.items()) / sum(slot.values()) for slot in planted]
    [said] = read_slots(answer, [item])
    assert isinstance(said, Prediction)
    assert said.levels == pytest.approx(means, abs=1e-9)
    assert all(0 <= level <= 9 for level in said.levels)


@pytest.mark.parametrize(
    "slots",
    [
        [{"0": 0.0}, None],
        [{"0": 0.0}, {}],
        [{"0": 0.0}, {"5": math.log(0.09)}],
        [{"0": 0.0}],
        [{"0": 0.0}] * 3,
        [{"0": 0.0}, {"12": 0.0}],
        [{"0": 0.0}, {"a": 0.0}],
        '[{"0": 0.0}, {"5": NaN}]',
        [{"0": 0.0}, {"5": 800.0}],
        "[[",
    ],
)
def test_what_is_no_distribution_over_digits_is_a_failure(slots: object) -> None:
    """A slot without log-probabilities, or whose digits have no mass, fails its item: it never becomes a zero."""
    [said] = read_slots(reply(slots), [Item(("a", "b"))])
    assert isinstance(said, Failure)
    assert (said.stage, said.kind) == ("simulate", "invalid")


@dataclass
class Says:
    """Says level 3 at every slot, but nothing at those of the items that begin with `bad`, in packs of `packs`."""

    bad: str
    packs: int
    asked: list[tuple[int, int]] = field(default_factory=list)
    """Items and replicate of every request."""

    async def __call__(self, request: Request) -> str:
        """The slots of all items."""
        items = request.user.split("\n\n")[1:]
        self.asked.append((len(items), request.replicate))
        lost = [item.startswith(self.bad) and len(items) >= self.packs for item in items]
        lines = [item.count("\n") + 1 for item in items]
        return json.dumps([None if gone else {"3": 0.0} for gone, n in zip(lost, lines, strict=True) for _ in range(n)])


def test_a_slot_without_a_distribution_fails_its_item_alone(tmp_path: Path) -> None:
    """The other item of the pack is read; the bad one is asked for again by itself, and fails by name."""
    says = Says("?", packs=1)
    good, bad = ask(ScriptedProvider(says), "slots/m", tmp_path)
    assert good == Prediction((3.0,) * 4)
    assert isinstance(bad, Failure)
    assert bad.kind == "invalid"
    assert says.asked == [(2, 0), (1, 1)]
    assert dict(ledger_row(tmp_path).failures) == {"invalid": 2}


def test_a_pack_that_says_nothing_is_asked_in_halves(tmp_path: Path) -> None:
    """The same text would have the same answer; a shorter one may be read, and more draws are possible later."""
    says = Says("", packs=2)
    items = [Item((f" word{index}", " cat")) for index in range(4)]
    said = ask(ScriptedProvider(says), "slots/m", tmp_path, items=items)
    assert all(isinstance(each, Failure) for each in said)
    assert says.asked == [(4, 0), (2, 1), (2, 1)]
    assert ask(ScriptedProvider(says), "slots/m", tmp_path, items=items, draws=3) == [Prediction((3.0, 3.0))] * 4
    assert says.asked[3:] == [(1, 2)] * 4


def test_sixty_items_are_three_requests(tmp_path: Path) -> None:
    """The instructions are read three times, not sixty; every level is found."""
    items = [Item((f" word{index}", " 7", "?", "\\n", "\\xe2")) for index in range(60)]
    with serve(bill=tmp_path / "bill") as server:
        said = ask(make_providers(["slots/m"], f"{server.url}/v1")["slots/m"], "slots/m", tmp_path, items=items)
        assert len(server.billed()) == 3
    assert all(isinstance(each, Prediction) for each in said)
    shared, own = (len(tokenize(text)) for text in (pack(items).system, slot_text(pack(items))))
    assert ledger_row(tmp_path).usage.input_tokens < own + 3 * shared


def pack(items: Sequence[Item], name: str = "slots/m") -> Request:
    """One request for all of `items`."""
    return render_slots(EXPLANATION, items, name, PROMPT)


def test_slots_are_found_in_the_text_around_them() -> None:
    """A piece before the text, or bytes written otherwise, move nothing; hidden levels before the start are none."""
    text = "a\t?\nb\t5\n\u00e9\t?\nd\t?"
    assert slot_tokens(text, 4, ["a", "\t", "?\n", "b", "\t", "5", "\n\u00e9", "\t", "?", "\nd", "\t", "?"]) == [8, 11]
    assert slot_tokens(text, 4, ["<s>", *"a\t?\nb\t5\n", "\ufffd", "", *"\t?\nd\t?"]) == [12, 16]
    assert slot_tokens(text, 4, ["<s>", *"a\t?\nb\t5\n", "\ufffd", "", *"\t?\nx\t?"]) == [None, None]
    assert slot_tokens(f"{text}\ne\t?", 4, [*"a\t?\nb\t5\né\t?\nd\t?\nx\t?", "</s>"]) == [10, None, None]


@pytest.mark.parametrize(
    ("tokens", "found"),
    [
        (["a", "\t", "5", "\nb", "\t?"], [None]),
        (["a", "\t5", "\nb", "\t", "?"], [None]),
        (["a", "\t", "5\n", "b", "\t", "?"], [None]),
        (["a", "\t", "5", "\nb", "\t"], [None]),
        (["a", "\t", "5", "\nb", "?"], [None]),
        ([], [None]),
        (["a", "\t", "5", "\nb", "\t", "?"], [5]),
    ],
)
def test_levels_that_are_no_tokens_by_themselves_have_no_place(tokens: list[str], found: list[int | None]) -> None:
    """A tab merged with its level, a digit merged with what follows, tokens of another text: no slot is guessed."""
    assert slot_tokens("a\t5\nb\t?", 0, tokens) == found


def test_a_server_is_read_over_http(tmp_path: Path) -> None:
    """Every level is the mean digit of the server's distribution there; the rest of the echo is not stored."""
    with serve(bill=tmp_path / "bill") as server:
        said = ask(make_providers(["slots/m"], f"{server.url}/v1")["slots/m"], "slots/m", tmp_path)
        assert ask(make_providers(["slots/m"], f"{server.url}/v1")["slots/m"], "slots/m", tmp_path) == said
        assert len(server.billed()) == 1
    tokens = tokenize(slot_text(pack(ITEMS)))
    after = dict(enumerate(contexts(tokens)))
    at = [index for index, token in enumerate(tokens) if token == "?" and tokens[index - 1] == "\t"]
    means = [expected(distribution(after[index], "?")) for index in at[-8:]]
    for prediction, wanted in zip(said, (means[:4], means[4:]), strict=True):
        assert isinstance(prediction, Prediction)
        assert prediction.levels == pytest.approx(wanted, abs=1e-9)
    assert (tmp_path / "answers.sqlite").stat().st_size < 100_000


@pytest.mark.parametrize("fault", ["429:0", "529", "malformed"])
def test_a_server_in_trouble_is_asked_again(fault: str, tmp_path: Path) -> None:
    """The path of a call is that of every other model."""
    with serve(bill=tmp_path / "bill", faults=[fault, "ok", "ok"]) as server:
        said = ask(CompletionsProvider("none", f"{server.url}/v1"), "slots/m", tmp_path)
    assert all(isinstance(each, Prediction) for each in said)


def plain(folder: Path, items: Sequence[Item]) -> list[float]:
    """Expected levels by one plain pass of transformers over the whole text, nothing reused."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(slot_text(pack(items)))["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    tab, mark, *digits = (tokenizer(each, add_special_tokens=False)["input_ids"][0] for each in "\t?0123456789")
    at = [i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) == (tab, mark)][
        -sum(len(item.tokens) for item in items) :
    ]
    chances = torch.softmax(logits[at], dim=-1)[:, digits]
    return ((chances @ torch.arange(10.0).double()) / chances.sum(-1)).tolist()


def without_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model expects digits too little for the shipped threshold."""
    monkeypatch.setattr("autointerp.simulate.logprob.LEAST_MASS", 0.0)


@pytest.mark.parametrize("make", [gpt2_folder, llama_folder])
def test_a_model_in_this_process_equals_a_plain_pass(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-5, in packs as well as in texts that reuse a prefix; free, so within a budget of nothing."""
    without_threshold(monkeypatch)
    name = f"local/{(folder := make(tmp_path / 'model', context=8192))}"
    provider = make_providers([name], device="cpu")[name]
    for size, wanted in ((2, plain(folder, ITEMS)), (1, [*plain(folder, ITEMS[:1]), *plain(folder, ITEMS[1:])])):
        said = ask(provider, name, tmp_path, cap=0, items_per_call=size)
        provider = make_providers([name], device="cpu")[name]
        levels = [level for each in said if isinstance(each, Prediction) for level in each.levels]
        assert levels == pytest.approx(wanted, abs=1e-5)


def test_digits_without_mass_are_no_prediction(folder: Path, tmp_path: Path) -> None:
    """A random model does not expect a level where one is hidden: its items fail by name."""
    name = f"local/{folder}"
    said = ask(make_providers([name], device="cpu")[name], name, tmp_path)
    assert all(isinstance(each, Failure) and each.kind == "invalid" for each in said)


def test_a_text_longer_than_the_model_fails_by_name(tmp_path: Path) -> None:
    """The model's positions are asked before it runs."""
    name = f"local/{gpt2_folder(tmp_path / 'short', context=64)}"
    said = ask(make_providers([name], device="cpu")[name], name, tmp_path)
    assert [each.kind for each in said if isinstance(each, Failure)] == ["too_long"] * len(ITEMS)


def test_other_weights_at_the_same_place_have_other_answers(folder: Path, tmp_path: Path) -> None:
    """The key knows the weights by their content."""
    names = [f"local/{folder}", f"local/{gpt2_folder(tmp_path / 'other', layers=1, context=64)}"]
    asked = render_slots(EXPLANATION, ITEMS[:1], "local/same", PROMPT)
    providers = make_providers(names, offline=True, device="cpu")
    assert len({answer_key(providers[name], asked) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: make_providers(["slots/m"]), "--base-url"),
        (lambda: make_providers(["local/nowhere/at/all"]), "nowhere/at/all"),
        (lambda: make_providers(["anthropic/m"], "http://127.0.0.1:1/v1", offline=True), "slots/"),
        (lambda: make_batch_providers(["slots/m"]), "--batch"),
    ],
)
def test_what_cannot_be_opened_is_said(make: Callable[[], object], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server, no such model, no batch API: one message that names what is missing."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UserError, match=said):
        make()


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace("{1,3}", "")


@pytest.mark.parametrize("pattern", [GPT2, LLAMA3, QWEN], ids=["gpt2", "llama3", "qwen"])
@given(
    st.lists(
        st.binary(min_size=1, max_size=4)
        | st.sampled_from([b" ", b"   ", b"5", b" 12", b"?", b"\t", b"\n\n", b"' s", "é".encode()]),
        min_size=1,
        max_size=9,
    )
)
def test_usual_tokenizers_keep_levels_apart(pattern: str, tokens: list[bytes]) -> None:
    """Whatever the item's tokens, the text is cut around tabs and levels before pieces are merged within a cut."""
    item = Item(tuple(map(notation.display, tokens)))
    text = slot_text(request := pack([item, item]))
    cuts = [piece for piece, _ in Split(Regex(pattern), "isolated").pre_tokenize_str(text)]
    assert "".join(cuts) == text
    found = slot_tokens(text, len(request.system), cuts)
    assert len(found) == 2 * len(tokens)
    assert None not in found
