"""A language model in this process, for simulators that read log-probabilities: nothing is sent, nothing costs."""

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from autointerp.llm.faults import Fault
from autointerp.llm.provider import Answer, Body, Sent, model_name
from autointerp.llm.slots import DIGITS, Slot, read_reduced, reduced, slot_text, slot_tokens
from autointerp.records.call import Request, Usage
from sae.errors import UserError
from sae.subject import devices, find_folder, load_model, weights_digest

_folder = cache(find_folder)


@cache
def _digest(folder: Path) -> str:
    """SHA-256 of everything that can change what the model says: weights, configuration, tokenizer."""
    sha = hashlib.sha256(weights_digest(folder).encode())
    for path in sorted(path for kind in ("*.json", "*.txt", "*.model") for path in folder.glob(kind)):
        sha.update(f"{path.name}\0".encode() + path.read_bytes())
    return sha.hexdigest()


class LocalProvider:
    """Runs the model in directory or of hub id `name` in a thread of its own, one text at a time.

    `device` is ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``mps``; the model computes in float32 on
    the CPU, in bfloat16 elsewhere. Raises `UserError` where there is no such model; its weights are read at the first
    request.
    """

    def __init__(self, name: str, device: str = "auto") -> None:
        self._folder = _folder(name)
        self._device = devices()[-1] if device == "auto" else device
        self._dtype = "float32" if self._device == "cpu" else "bfloat16"
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="local-model")

    @property
    def address(self) -> str:
        """Content hash of weights and tokenizer: the same directory with others is another model."""
        return f"local:{_digest(self._folder)}"

    def render(self, request: Request) -> Body:
        """Everything that can change the answer."""
        return {"prompt": slot_text(request), "dtype": self._dtype}

    async def send(self, request: Request) -> Sent:
        """Run the model over the text once. Raises `Fault` where the text is too long for it."""
        body = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, request)
        return Sent(body, "")

    def read(self, body: Body) -> Answer:
        """What `body` says. Raises `Fault` where it says nothing."""
        usage: dict[str, int] = body.get("usage") or {}
        return read_reduced(body, Usage(usage.get("read", 0), usage.get("cached", 0), 0, 0))

    async def aclose(self) -> None:
        """End the thread after the text that it is at."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _run(self, request: Request) -> Body:
        slots, usage = self._reader.read(slot_text(request), len(request.system))
        return reduced(slots, usage, model_name(request))

    @cached_property
    def _reader(self) -> "Reader":
        model, tokenizer = load_model(self._folder, device=self._device, dtype=self._dtype)
        return Reader(model, tokenizer, self._folder)


class Reader:
    """Reads the digits' log-probabilities at hidden levels; not for more than one thread at a time."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
        if not tokenizer.is_fast:
            raise UserError(f"The tokenizer in {folder} cannot say where its tokens stand.", do="Use another model.")
        self._model: Any = model
        self._tokenizer: Any = tokenizer
        self._digits = self._digit_ids()
        self._prefix: list[int] = []
        self._cache: Any = None

    @torch.no_grad()
    def read(self, text: str, prefix: int) -> tuple[list[Slot], dict[str, int]]:
        """What is likely at each slot of `text` after its first `prefix` characters, and the tokens read.

        What the model makes of the prefix is kept: the next text will share it. Where to cut depends on the text
        alone, so a text's numbers do not depend on what was read before it.
        """
        encoded = self._tokenizer(text, return_offsets_mapping=True)
        ids, spans = encoded["input_ids"], encoded["offset_mapping"]
        self._check(len(ids))
        begins = {start: index for index, (start, end) in enumerate(spans) if end > start}
        slots = slot_tokens(text, prefix, [text[start:end] for start, end in spans], begins)
        shared = next((index for index, (_, end) in enumerate(spans) if end > prefix), len(ids))
        at = [index - 1 - shared for index in slots if index is not None]
        if not at or not self._digits:
            return [None] * len(slots), {"read": len(ids), "cached": 0}
        reused = self._warm(ids[:shared])
        rows = iter(self._log_probabilities(ids[shared:], at))
        found: list[Slot] = [
            None if index is None else dict(zip(self._digits, next(rows), strict=True)) for index in slots
        ]
        return found, {"read": len(ids), "cached": shared if reused else 0}

    def _warm(self, ids: list[int]) -> bool:
        """Have the model's keys and values for `ids` at hand; whether they already were."""
        if self._cache is not None and ids == self._prefix:
            return True
        self._cache, self._prefix = DynamicCache(), ids
        if ids:
            self._model.base_model(self._tensor(ids), past_key_values=self._cache, use_cache=True)
        return False

    def _log_probabilities(self, ids: Sequence[int], at: Sequence[int]) -> list[list[float]]:
        """Of the digits after each position `at` of `ids`, which follow the prefix."""
        # A copy, since how much `crop` takes away differs between versions of transformers.
        kept = torch.tensor(at, device=self._model.device)  # a whole vocabulary for every position would fill memory
        said = self._model(
            self._tensor(ids), past_key_values=deepcopy(self._cache), use_cache=True, logits_to_keep=kept
        )
        after = torch.log_softmax(said.logits[0].float(), dim=-1)
        return after[:, list(self._digits.values())].cpu().tolist()

    def _digit_ids(self) -> dict[str, int]:
        """The tokens that are a digit after a tab; without those of digits that are none by themselves."""
        found: dict[str, int] = {}
        for digit in DIGITS:
            encoded = self._tokenizer(f"\t{digit}", add_special_tokens=False, return_offsets_mapping=True)
            if tuple(encoded["offset_mapping"][-1]) == (1, 2):
                found[digit] = encoded["input_ids"][-1]
        return found

    def _check(self, length: int) -> None:
        longest = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if longest is not None and length > longest:
            raise Fault("too_long", f"The text has {length} tokens, and the model reads {longest} at most.")

    def _tensor(self, ids: Sequence[int]) -> torch.Tensor:
        return torch.tensor([ids], device=self._model.device)
