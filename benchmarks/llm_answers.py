"""What the loopback server answers in the throughput benchmark: always of the form that the caller can read."""

import hashlib
import json
import re
from typing import Any

from tests.servers.answers import default_answer, user_text

_EXAMPLE = re.compile(r"^Example \d+:", re.MULTILINE)


def answer(body: dict[str, Any]) -> str:
    """A deterministic answer: by JSON schema for us, in delphi's three forms (it sends no schema) for delphi."""
    if "response_format" in body or "output_config" in body:
        return default_answer(body)
    asked = user_text(body)
    digest = hashlib.sha256(asked.encode()).hexdigest()
    if asked.startswith('{"to_find"'):
        question = json.loads(asked)
        levels = [1, *(int(letter, 16) % 10 for letter in digest)]
        question["activations"] = [
            cell | {"activation": level} for cell, level in zip(question["activations"], levels, strict=False)
        ]
        return json.dumps(question)
    if "Latent explanation:" in asked:
        return json.dumps([int(letter, 16) % 2 for letter, _ in zip(digest, _EXAMPLE.findall(asked), strict=False)])
    return f"[EXPLANATION]: tokens that remind of {digest[:8]}"
