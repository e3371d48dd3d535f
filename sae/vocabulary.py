"""The bytes behind token ids."""

import json
import re
from collections.abc import Callable
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def token_bytes(tokenizer: PreTrainedTokenizerBase, size: int) -> tuple[bytes, ...]:
    """The bytes of token ids 0 to `size`; empty for ids that the tokenizer does not have.

    Exact for byte-level and for SentencePiece-style vocabularies; special tokens are their own text. Other
    tokenizers give what they decode.
    """
    whole = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
    read = _reader(tokenizer)
    known = min(size, len(tokenizer))
    tokens = cast(list[str], tokenizer.convert_ids_to_tokens(list(range(known))))
    found = [whole[i].encode() if i in whole else read(i, token) for i, token in enumerate(tokens)]
    return (*found, *[b""] * (size - known))


def _reader(tokenizer: PreTrainedTokenizerBase) -> Callable[[int, str], bytes]:
    """How the bytes of an ordinary token follow from its id and its text in the vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    kinds = _decoder_kinds(json.loads(backend.to_str())["decoder"]) if backend else set[str]()
    if "ByteLevel" in kinds:
        alphabet = _byte_alphabet()

        def byte_level(_id: int, token: str) -> bytes:
            if any(character not in alphabet for character in token):
                return token.encode()
            return bytes(alphabet[character] for character in token)

        return byte_level
    if kinds & {"ByteFallback", "Metaspace"}:

        def sentence_piece(_id: int, token: str) -> bytes:
            byte = _BYTE.fullmatch(token)
            return bytes([int(byte.group(1), 16)]) if byte else token.replace("▁", " ").encode()

        return sentence_piece
    return lambda i, _token: cast(str, tokenizer.decode([i])).encode()


def _decoder_kinds(decoder: Any) -> set[str]:
    if not decoder:
        return set()
    inner = [_decoder_kinds(part) for part in decoder.get("decoders", ())]
    return {decoder["type"]}.union(*inner)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's: printable Latin-1 characters stand for themselves, the other bytes for 256, 257, ... in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
