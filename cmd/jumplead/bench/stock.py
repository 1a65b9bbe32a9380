"""The stock client's side of the benchmark.

One line of JSON a command on standard input, one line with its seconds on
standard output:

    {"at": "HOST:PORT", "op": "call", "n": 100}
    {"at": "HOST:PORT", "op": "up" | "down", "n": bytes, "chunk": bytes}
    {"at": "HOST:PORT", "op": "flash" | "dump", "path": file}

Calls and tunnels go through the client classes as a test would use them; the
time does not include connecting.
"""

import json
import os
import struct
import sys
import time
from contextlib import ExitStack

from anyio.from_thread import start_blocking_portal
from jumpstarter.client.client import client_from_path


async def up(client, n, chunk):
    data = bytes(chunk)
    async with client.stream_async("connect") as s:
        start = time.perf_counter()
        await s.send(b"U" + struct.pack(">Q", n))
        for _ in range(n // chunk):
            await s.send(data)
        await s.receive()  # the peer has it all
        return time.perf_counter() - start


async def down(client, n, _chunk):
    async with client.stream_async("connect") as s:
        start = time.perf_counter()
        await s.send(b"D" + struct.pack(">Q", n) + struct.pack(">Q", _chunk))
        left = n
        while left > 0:
            left -= len(await s.receive())
        return time.perf_counter() - start


def main():
    # Progress and the like are not for whoever reads our answers.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    clients = {}
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        for line in sys.stdin:
            cmd = json.loads(line)
            at = cmd["at"]
            if at not in clients:
                clients[at] = stack.enter_context(
                    portal.wrap_async_context_manager(
                        client_from_path(at, portal, stack, allow=[], unsafe=True, insecure=True)
                    )
                )
            client = clients[at]
            if cmd["op"] == "call":
                power = client.children["power"]
                start = time.perf_counter()
                for _ in range(cmd["n"]):
                    power.on()
                seconds = (time.perf_counter() - start) / cmd["n"]
            elif cmd["op"] in ("flash", "dump"):
                flasher = client.children["flasher"]
                start = time.perf_counter()
                getattr(flasher, cmd["op"])(cmd["path"])
                seconds = time.perf_counter() - start
            else:
                f = {"up": up, "down": down}[cmd["op"]]
                seconds = portal.call(f, client.children["tcp"], cmd["n"], cmd["chunk"])
            print(json.dumps({"seconds": seconds}), file=out, flush=True)


main()
