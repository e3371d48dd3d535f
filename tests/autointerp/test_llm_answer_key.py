"""Keys of answers."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from autointerp.llm.provider import answer_key
from autointerp.llm.scripted import ScriptedProvider
from tests.autointerp.llm_parts import parrot, request


@given(st.dictionaries(st.sampled_from(["system", "user", "schema", "max_tokens", "replicate"]), st.integers(1, 3)))
def test_everything_that_changes_the_answer_is_in_the_key(changes: dict[str, int]) -> None:
    """Keys are equal where, and only where, these fields are; Unicode is taken as it is."""
    provider = ScriptedProvider(parrot)
    texts = {"system", "user", "schema"}
    values = {name: f"{'é' * n}" if name in texts else 10 + n for name, n in changes.items()}
    plain, changed = request(), request(**values)
    assert answer_key(provider, changed) == answer_key(provider, replace(changed, stage="x", arm="y"))
    assert (answer_key(provider, plain) == answer_key(provider, changed)) == (plain == changed)
    assert answer_key(provider, changed) != answer_key(provider, changed, fresh=True)
