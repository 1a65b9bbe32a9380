"""A driver that a lab has written, of which nobody else knows."""

import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass

from anyio import BrokenResourceError, connect_tcp, create_task_group, create_tcp_listener, sleep_forever
from anyio.abc import SocketAttribute
from jumpstarter_driver_power.driver import MockPower

from jumpstarter.driver import Driver, export, exportstream


async def endless(stream):
    """Sends for as long as somebody takes it."""
    async with stream:
        try:
            while True:
                await stream.send(b"x" * 10_000)
        except BrokenResourceError:
            pass


@dataclass(kw_only=True)
class Gadget(Driver):
    port: int = 0
    since: object = None

    def __post_init__(self):
        super().__post_init__()
        self.children["rail"] = MockPower()
        self.resets = 0

    @classmethod
    def client(cls) -> str:
        return "lab_gadget_client.GadgetClient"

    def reset(self):
        super().reset()
        self.resets += 1

    def close(self):
        print("gadget closed", flush=True)
        super().close()

    @export
    def state(self):
        return {"resets": self.resets, "since": type(self.since).__name__, "pid": os.getpid(), "uid": os.getuid()}

    @export
    def count(self, n):
        for i in range(int(n)):
            yield i

    @export
    async def size(self, handle):
        total = 0
        async with self.resource(handle) as stream:
            async for chunk in stream:
                total += len(chunk)
        return total

    @export
    async def make(self, handle, n):
        async with self.resource(handle) as stream:
            for _ in range(int(n)):
                await stream.send(b"x" * 1000)

    @exportstream
    @asynccontextmanager
    async def connect(self):
        async with await connect_tcp("127.0.0.1", self.port) as stream:
            yield stream

    @export
    def say(self, text):
        self.logger.warning("%s", text)
        print("printed " + text, flush=True)
        print("complained " + text, file=sys.stderr, flush=True)

    @exportstream
    @asynccontextmanager
    async def flood(self):
        server = await create_tcp_listener(local_host="127.0.0.1")
        async with create_task_group() as tasks, server:
            tasks.start_soon(server.serve, endless)
            async with await connect_tcp(*server.extra(SocketAttribute.local_address)) as stream:
                yield stream
            tasks.cancel_scope.cancel()

    @export
    def hang(self):
        time.sleep(3600)

    @export
    async def hang_await(self):
        await sleep_forever()

    @export
    async def hang_loop(self):
        time.sleep(3600)  # and nothing else goes on in this process

    @export
    def fail(self, what):
        raise {"value": ValueError, "timeout": TimeoutError, "key": KeyError, "none": NotImplementedError}[what]("it is " + what)

    @export
    def spawn(self):
        return subprocess.Popen(["setsid", "sleep", "600"]).pid

    @export
    def ask(self, name):
        return [r.voltage for r in self.children[name].read()]


class Exits(Gadget):
    def __post_init__(self):
        super().__post_init__()
        print("no way", file=sys.stderr, flush=True)
        os._exit(5)
