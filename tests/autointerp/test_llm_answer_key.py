"""Keys of answers."""

import json
import unicodedata
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from autointerp.llm.provider import Body, answer_key
from autointerp.llm.scripted import ScriptedProvider
from autointerp.records.call import Request
from tests.autointerp.llm_parts import parrot, request

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


class Rendering(ScriptedProvider):
    """Renders every request as a body that the test gives."""

    def __init__(self, body: Body) -> None:
        super().__init__(parrot)
        self.body = body

    def render(self, request: Request) -> Body:
        return self.body


def key(body: Body) -> bytes:
    """The key of a request that is rendered as `body`."""
    return answer_key(Rendering(body), request())


def reordered(value: Any, turn: int) -> Any:
    """`value` with the names of every object in another order."""
    if isinstance(value, dict):
        names = list(reversed(value))
        return {name: reordered(value[name], turn) for name in (*names[turn:], *names[:turn])}
    return [reordered(each, turn) for each in value] if isinstance(value, list) else value


@given(
    st.dictionaries(
        st.sampled_from(["system", "user", "schema", "max_tokens", "replicate", "thinking"]), st.integers(1, 3)
    )
)
def test_everything_that_changes_the_answer_is_in_the_key(changes: dict[str, int]) -> None:
    """Keys are equal where, and only where, these fields are; who pays is left out."""
    provider = ScriptedProvider(parrot)
    texts = {"system", "user", "schema"}
    values = {name: f"{'é' * n}" if name in texts else 10 + n for name, n in changes.items()}
    if "thinking" in values:
        values["thinking"] = "least"
    plain, changed = request(), request(**values)
    assert answer_key(provider, changed) == answer_key(provider, replace(changed, stage="x", arm="y"))
    assert (answer_key(provider, plain) == answer_key(provider, changed)) == (plain == changed)
    assert answer_key(provider, changed) != answer_key(provider, changed, draw=1)


@given(body=st.dictionaries(st.text(), JSON, max_size=4), turn=st.integers(0, 4))
def test_the_order_of_a_body_is_no_part_of_its_key(body: Body, turn: int) -> None:
    """Nor is the way in which its text was escaped on the way."""
    assert key(body) == key(reordered(body, turn)) == key(json.loads(json.dumps(body, ensure_ascii=True)))


@given(first=st.dictionaries(st.text(), JSON, max_size=3), second=st.dictionaries(st.text(), JSON, max_size=3))
def test_different_bodies_have_different_keys(first: Body, second: Body) -> None:
    """Whatever the texts hold: quotes, separators, numbers that look alike."""
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (key(first) == key(second)) == same


def test_unicode_is_taken_as_it_is() -> None:
    """The two ways to write é are two texts: a tokenizer sees them differently."""
    composed, decomposed = "é", unicodedata.normalize("NFD", "é")
    assert key({"text": composed}) != key({"text": decomposed})
