"""Imported by the process that workers are forked from, so that everything that a first call loads is loaded once."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.servers import worker
from tests.servers.loopback import serve

with TemporaryDirectory() as _folder, serve(faults=["429", "reset"]) as _server:
    asyncio.run(worker.run(Path(_folder) / "answers.sqlite", f"{_server.url}/v1", 1, 10**9, haste=1000.0))
