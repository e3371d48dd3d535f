"""HTTP/1.1 over asyncio streams: as much as the providers' SDKs speak, with keep-alive, and the faults of a network."""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By lower-case name."""
    content: bytes


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What goes back."""

    status: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    how: Literal["whole", "slow", "cut", "reset"] = "whole"
    """At once; half of it and the rest after a silence; half of it and a reset; nothing but a reset."""


Handler = Callable[[Incoming], Awaitable[Outgoing]]

RESET = Outgoing(0, b"", how="reset")


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Outgoing:
    """`value` as a JSON body."""
    return Outgoing(status, json.dumps(value).encode(), {"content-type": "application/json", **(headers or {})})


async def converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler, silence: Callable[[], float]
) -> None:
    """Answer one connection's requests in order, until either side ends it; `silence` is the length of a slow one."""
    try:
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (request := await _read(reader)) is not None:
            reply = await handle(request)
            if not await _write(writer, reply, silence()):
                break
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        pass  # the client is gone, or the server ends
    finally:
        writer.close()
        with suppress(ConnectionError, asyncio.CancelledError):
            await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Incoming | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    content = await _read_content(reader, headers)
    parts = urlsplit(target)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return Incoming(method, parts.path, query, headers, content)


async def _read_content(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    chunks: list[bytes] = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(chunks)


async def _write(writer: asyncio.StreamWriter, reply: Outgoing, silence: float) -> bool:
    """Whether the connection lives on."""
    if reply.how == "reset":
        _reset(writer)
        return False
    head = [f"HTTP/1.1 {reply.status} X", f"content-length: {len(reply.content)}"]
    head += [f"{name}: {value}" for name, value in reply.headers.items()]
    start = ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")
    half = len(reply.content) if reply.how == "whole" else len(reply.content) // 2
    writer.write(start + reply.content[:half])
    await writer.drain()
    if reply.how == "cut":
        _reset(writer)
        return False
    if reply.how == "slow":
        await asyncio.sleep(silence)
        writer.write(reply.content[half:])
        await writer.drain()
    return True


def _reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection off as a dying machine does: with RST."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
