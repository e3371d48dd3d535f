"""What was asked, and a deterministic answer to it."""

import hashlib
import json
import re
from typing import Any

_QUESTION = re.compile(r"^item (\d+): ", re.MULTILINE)
_ITEM = re.compile(r"^item (\d+) \((\d+) tokens?\):", re.MULTILINE)
_TOO_LONG = 500
"""Characters of an explanation of the wrong length."""


def default_answer(body: dict[str, Any]) -> str:
    """An answer of the form that the request's JSON schema asks for; plain words without a schema."""
    asked = body.get("messages") or body.get("input") or body.get("prompt")
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    properties = (_schema(body) or {}).get("properties", {})
    if "explanation" in properties:
        return json.dumps({"explanation": f"tokens that remind of {digest[:8]}"})
    if "predictions" in properties:
        wanted = [(int(item), int(count)) for item, count in _ITEM.findall(user_text(body))]
        return json.dumps({"predictions": [_levels(digest, item, count) for item, count in wanted]})
    if "answers" in properties:
        numbers = [int(item) for item in _QUESTION.findall(user_text(body))]
        return json.dumps({"answers": [_certainty(digest, item) for item in numbers]})
    return f"answer {digest[:8]}"


def wrong_length(text: str) -> str:
    """`text` with one level too many and the last item missing, or far too long: the wrong length, whatever it is."""
    try:
        answer = json.loads(text)
        predictions = answer["predictions"]
        predictions[0]["levels"] += "0"
        return json.dumps(answer | {"predictions": predictions if len(predictions) == 1 else predictions[:-1]})
    except (ValueError, LookupError, TypeError):
        long = "very " * (_TOO_LONG // 5)
        return json.dumps({"explanation": long}) if text.startswith('{"explanation"') else long + text


def request_hash(body: dict[str, Any]) -> str:
    """Names what was asked: the user's text and the model."""
    return hashlib.sha256(f"{body['model']} {user_text(body)}".encode()).hexdigest()


def user_text(body: dict[str, Any]) -> str:
    """The last thing that the user said, in any of the dialects."""
    asked = body.get("messages") or body.get("input") or body.get("prompt") or ""
    if isinstance(asked, str):
        return asked
    last = asked[-1]
    content = last["content"] if isinstance(last, dict) else last
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def sent_text(body: dict[str, Any]) -> str:
    """Everything that is read, as JSON."""
    parts = ("system", "instructions", "messages", "input", "prompt")
    return "".join(json.dumps(body[part]) for part in parts if part in body)


def _certainty(digest: str, item: int) -> dict[str, int]:
    return {"item": item, "sure": hashlib.sha256(f"{digest} {item}".encode()).digest()[0] % 10}


def _levels(digest: str, item: int, count: int) -> dict[str, Any]:
    stream = hashlib.shake_256(f"{digest} {item}".encode()).digest(count)
    return {"item": item, "levels": "".join(str(byte % 10) for byte in stream)}


def _schema(body: dict[str, Any]) -> dict[str, Any] | None:
    messages = body.get("output_config", {}).get("format", {}).get("schema")
    chat = body.get("response_format", {}).get("json_schema", {}).get("schema")
    return messages or chat or body.get("text", {}).get("format", {}).get("schema")
