"""What a worker loads before it joins a cluster: `dask worker ... --preload stepwise.sweep.worker`.

It joins when its ComfyUI answers. A worker that has lost it ends, is started anew by its nanny, and waits here.
"""

import asyncio
import signal
from typing import Any

from .host import Host
from .task import url_of

BETWEEN = 0.5


async def dask_setup(worker: Any) -> None:
    # A terminal's Ctrl-C comes to all; the command ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    host = Host(url_of(worker.name))
    while not await asyncio.to_thread(host.answers):
        await asyncio.sleep(BETWEEN)
