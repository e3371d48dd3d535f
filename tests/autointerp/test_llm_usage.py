"""Tokens as providers report them: read as genai-prices reads them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.llm.usage import Flavor, extracted_usage, reported_usage
from autointerp.records.call import Usage

NUMBER = st.one_of(st.integers(0, 10**7), st.integers(-3, 3), st.none(), st.booleans(), st.floats(), st.just("7"))
DETAILS = st.one_of(
    st.dictionaries(
        st.sampled_from(
            ["cached_tokens", "cache_write_tokens", "audio_tokens", "reasoning_tokens", "ephemeral_5m_input_tokens"]
        ),
        NUMBER,
    ),
    NUMBER,
    st.just([]),
)
FIELDS = {
    "default": {
        **dict.fromkeys(
            ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"), NUMBER
        ),
        **dict.fromkeys(("cache_creation", "server_tool_use", "output_tokens_details"), DETAILS),
        "service_tier": st.text(max_size=3),
    },
    "chat": {
        **dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), NUMBER),
        **dict.fromkeys(("prompt_tokens_details", "completion_tokens_details"), DETAILS),
    },
}
PROVIDERS: dict[Flavor, str] = {"default": "anthropic", "chat": "openai"}
USUAL: dict[Flavor, tuple[dict[str, Any], Usage]] = {
    "default": (
        {
            "input_tokens": 7,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 20,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 3,
            "service_tier": "standard",
            "server_tool_use": None,
        },
        Usage(127, 100, 20, 3),
    ),
    "chat": (
        {
            "prompt_tokens": 127,
            "completion_tokens": 3,
            "total_tokens": 130,
            "prompt_tokens_details": {"cached_tokens": 100, "audio_tokens": 0},
            "completion_tokens_details": None,
        },
        Usage(127, 100, 0, 3),
    ),
}


@pytest.mark.parametrize("flavor", ["default", "chat"])
@given(data=st.data())
def test_any_report_is_read_as_the_price_library_reads_it(flavor: Flavor, data: st.DataObject) -> None:
    """Missing, negative and odd values too: no reading of ours may change what is charged."""
    said = data.draw(st.one_of(st.fixed_dictionaries({}, optional=FIELDS[flavor]), NUMBER))
    body = {"usage": said}
    assert reported_usage(body, PROVIDERS[flavor], flavor) == extracted_usage(body, PROVIDERS[flavor], flavor)


@pytest.mark.parametrize("flavor", ["default", "chat"])
def test_a_usual_report_needs_no_price_library(flavor: Flavor, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for reports of another form only."""
    said, usage = USUAL[flavor]
    assert extracted_usage({"usage": said}, PROVIDERS[flavor], flavor) == usage
    monkeypatch.setattr("autointerp.llm.usage.extracted_usage", None)
    assert reported_usage({"usage": said}, PROVIDERS[flavor], flavor) == usage
