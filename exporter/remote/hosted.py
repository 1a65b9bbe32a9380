"""Runs stock Jumpstarter drivers for jumplead.

Usage: hosted.py SOCKET

One process has one tree of drivers, which the session of the installed jumpstarter
package has. What is in the tree is told by lines of JSON on standard input, each
of which is answered by a line on descriptor 3; lines there without an id are log
records. The process ends with its standard input. What drivers print is theirs: it
does not meet what is said here.

RPCs come on a connection to a Unix socket, in frames that wire.go describes. They
are served in the loop that drivers run in; gRPC's own server would pass each
message between threads.
"""

import asyncio
import base64
import collections
import importlib
import inspect
import json
import logging
import os
import socket
import struct
import sys
import threading
import time
from contextlib import suppress

sys.path[:] = [p for p in sys.path if p != os.path.dirname(os.path.abspath(__file__))]
os.set_inheritable(3, False)
# What is told here is not for drivers to read, nor for programs that they start.
told = os.fdopen(os.dup(0), "rb")
nothing = os.open(os.devnull, os.O_RDONLY)
os.dup2(nothing, 0)
os.close(nothing)
lock = threading.Lock()


def say(**line):
    text = json.dumps(line, default=str).encode() + b"\n"
    with lock:
        write(text)


def write(text):
    try:
        while text:
            text = text[os.write(3, text) :]
    except OSError as e:  # nobody will hear anything any more
        print(f"descriptor 3: {describe(e)}", file=sys.stderr, flush=True)
        os._exit(1)


def give_up(kind, **more):
    say(fatal=dict(kind=kind, **more))
    os._exit(3)


def describe(e):
    """An exception for people, in one line."""
    text = " ".join(str(e).split())
    return f"{type(e).__name__}: {text}" if text else type(e).__name__


try:
    import grpc
    import yaml
    from anyio import EndOfStream, TypedAttributeLookupError
    from anyio.abc import ObjectStream
    from jumpstarter.common import ExporterStatus
    from jumpstarter.common.streams import StreamRequestMetadata
    from jumpstarter.config.exporter import ExporterConfigV1Alpha1DriverInstance as Instance
    from jumpstarter.driver import Driver
    from jumpstarter.exporter.session import Session
    from jumpstarter.streams.common import forward_stream
    from jumpstarter.streams.metadata import MetadataStreamAttributes
    from jumpstarter_protocol import jumpstarter_pb2, router_pb2
except ModuleNotFoundError as e:
    give_up("missing", module=e.name, text=describe(e))
except BaseException as e:  # whatever it is, somebody wants to know
    give_up("import", text=describe(e))


class Group(Driver):
    """What stands above the drivers: it has children and nothing else."""

    @classmethod
    def client(cls):
        return "jumpstarter_driver_composite.client.CompositeClient"


class Refused(Exception):
    """Says why a driver cannot be had, in words that the other side knows."""

    def __init__(self, kind, text, **more):
        super().__init__(text)
        self.answer = dict(kind=kind, text=text, **more)


def find(path):
    """The driver class that a type names."""
    importlib.invalidate_caches()
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise Refused("class", f"{path!r} names no class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name and (module_name == e.name or module_name.startswith(e.name + ".")):
            raise Refused("missing", describe(e), module=e.name)
        raise Refused("import", describe(e), module=e.name)
    except BaseException as e:  # SystemExit, too
        raise Refused("import", describe(e))
    cls = getattr(module, name, None)
    if not (inspect.isclass(cls) and issubclass(cls, Driver)):
        there = [f"{module_name}.{n}" for n, v in vars(module).items() if inspect.isclass(v) and issubclass(v, Driver)]
        raise Refused("class", f"{module_name} has no driver {name}", there=sorted(there))
    return cls


def look(path):
    """What can be told of a driver without making one."""
    cls = find(path)
    try:
        client = cls.client()
    except BaseException:  # a proxy has none
        client = ""
    fields, required = [], []
    for f in getattr(cls, "__dataclass_fields__", {}).values():
        if f.init and f.name not in ("children", "description", "methods_description"):
            fields.append(f.name)
            if type(f.default).__name__ == type(f.default_factory).__name__ == "_MISSING_TYPE":
                required.append(f.name)
    return dict(client=client, kind=getattr(cls, "driver_type", ""), fields=fields, required=required)


class Loader(yaml.SafeLoader):
    """Gives YAML the meaning that it has for the stock exporter."""

    def __init__(self):
        super().__init__("")

    def node(self, n):
        match n:
            case {"map": pairs}:
                return yaml.MappingNode("tag:yaml.org,2002:map", [(self.node(k), self.node(v)) for k, v in pairs])
            case {"list": items}:
                return yaml.SequenceNode(n.get("tag") or "tag:yaml.org,2002:seq", [self.node(i) for i in items])
        text, plain = n.get("text", ""), n.get("plain", False)
        tag = n.get("tag") or self.resolve(yaml.ScalarNode, text, (plain, not plain))
        return yaml.ScalarNode(tag, text)


def plain(n):
    return {} if n is None else Loader().construct_document(Loader().node(n))


def declaration(d):
    """A node as the stock package's config declares it."""
    if d.get("ref"):
        return {"ref": d["ref"]}
    children = {c["name"]: declaration(c) for c in d.get("children") or []}
    if not d.get("type"):
        return {"children": children}
    find(d["type"])  # says more than the package does
    return {
        "type": d["type"],
        "description": d.get("description") or None,
        "methods_description": d.get("methods") or {},
        "config": plain(d.get("config")),
        "children": children,
    }


class Tree:
    def __init__(self):
        self.root = Group()
        self.session = Session(root_device=self.root)
        self.parts = {}  # what has been opened, by path
        self.names = {}  # of loggers, and the paths of their drivers

    def group(self, path, make):
        at = self.root
        for name in path:
            if name not in at.children:
                if not make:
                    return None
                at.children[name] = Group()
            at = at.children[name]
        return at

    def settle(self):
        """Lets the session know what there is now."""
        self.session.mapping = {d.uuid: d for part in self.parts.values() for d in part}

    def name(self, driver, path):
        """Gives a driver a logger of its own: drivers of one class share one."""
        try:
            logger = logging.getLogger(f"{driver.logger.name}.{'.'.join(path)}")
            logger.setLevel(driver.log_level)
            driver.logger = logger
            self.names[logger.name] = path
        except Exception:  # one that does not want it has its class's
            pass
        for name, child in driver.children.items():
            self.name(child, path + [name])

    def open(self, path, decl):
        """Makes a driver with all below it, and returns its reports."""
        self.close(path)
        driver = Instance.model_validate(declaration(decl)).instantiate()
        above = self.group(path[:-1], True)
        above.children[path[-1]] = driver
        try:
            part = driver.enumerate(root=self.root, name=path[-1])
            reports = [d.report(parent=parent, name=name) for _, parent, name, d in part]
            driver.reset()
        except BaseException:
            del above.children[path[-1]]
            driver.close()
            raise
        self.parts[tuple(path)] = [d for _, _, _, d in part]
        self.settle()
        self.name(driver, path)
        return base64.b64encode(jumpstarter_pb2.GetReportResponse(reports=reports).SerializeToString()).decode()

    def close(self, path):
        above = self.group(path[:-1], False)
        driver = above and above.children.pop(path[-1], None)
        if driver is None:
            return
        self.parts.pop(tuple(path), None)
        self.settle()
        driver.close()

    def reset(self, path):
        if driver := self.group(path, False):
            driver.reset()

    def end(self):
        for name, driver in reversed(list(self.root.children.items())):
            try:
                driver.close()
            except BaseException as e:
                print(f"close {name}: {describe(e)}", file=sys.stderr)


class Handler(logging.Handler):
    """Sends log records to the exporter. Those of calls it makes itself.

    A call is not held up by what it logs: records are sent together, soon after.
    """

    SOON = 0.01  # seconds

    def __init__(self, tree):
        super().__init__()
        self.tree = tree
        self.records = collections.deque()
        self.some = threading.Event()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while self.some.wait():
            time.sleep(self.SOON)
            self.flush()

    def flush(self):
        self.some.clear()
        with lock:
            text = b""
            while self.records:
                text += json.dumps(dict(log=self.records.popleft())).encode() + b"\n"
            write(text)

    def emit(self, record):
        try:
            if hasattr(record, "operation"):
                return
            text = record.getMessage()
            if record.exc_info and record.exc_info[1]:
                text += ": " + describe(record.exc_info[1])
            path = self.tree.names.get(record.name)
            self.records.append(dict(logger=record.name, level=record.levelname, text=text, path=path))
            if not self.some.is_set():
                self.some.set()
        except Exception:
            self.handleError(record)


HEAD = struct.Struct(">IIB")  # of a frame: length, number of the RPC, kind
CREDIT = struct.Struct(">I")
OPEN, MESSAGE, END, CANCEL, GRANT, HEADERS, STATUS = range(1, 8)
WINDOW = 1 << 20  # bytes of messages of one RPC that may be under way
CUSHION = 1 << 20  # bytes that the kernel may hold, if it is allowed to
BUFFER = 256 << 10
GOAWAY = router_pb2.StreamResponse(frame_type=router_pb2.FRAME_TYPE_GOAWAY).SerializeToString()


def plain_metadata(pairs):
    """Metadata as JSON can have them."""

    def text(key, value):
        if key.endswith("-bin"):
            return base64.b64encode(value).decode()
        return value.decode() if isinstance(value, bytes) else "" if value is None else str(value)

    return [(key, text(key, value)) for key, value in pairs or ()]


class Wire(asyncio.BufferedProtocol):
    """The connection that RPCs come on."""

    def __init__(self, session, loop):
        self.session, self.loop = session, loop
        self.calls, self.tasks = {}, set()  # tasks may clean up after their RPCs
        self.buffer = memoryview(bytearray(BUFFER))
        self.start = self.stop = 0  # of what was read and not used yet

    def connection_made(self, transport):
        self.transport = transport
        with suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CUSHION)

    def connection_lost(self, _):
        for call in list(self.calls.values()):
            call.cancel()

    def get_buffer(self, _):
        return self.buffer[self.stop :]

    def buffer_updated(self, n):
        self.stop += n
        need = HEAD.size
        while self.stop - self.start >= HEAD.size:
            size, number, kind = HEAD.unpack_from(self.buffer, self.start)
            begin = self.start + HEAD.size
            if begin + size > self.stop:
                need += size
                break
            self.start = begin + size
            self.frame(kind, number, self.buffer[begin : self.start])
        # What is left goes to the front of the buffer before there is little room, and
        # to one that is large enough for all of it.
        rest, size = self.buffer[self.start : self.stop], max(need, BUFFER)
        if size > len(self.buffer) or not rest and size < len(self.buffer):
            self.buffer = memoryview(bytearray(size))
        elif rest and self.start + need <= len(self.buffer) and len(self.buffer) - self.stop >= BUFFER // 4:
            return
        self.start, self.stop = 0, len(rest)
        self.buffer[: self.stop] = rest

    def frame(self, kind, number, data):
        if kind == OPEN:
            call = self.calls[number] = Call(self, number, json.loads(bytes(data)))
            if call.method == "Stream":
                call.start(call.stream())
        elif call := self.calls.get(number):
            if kind == MESSAGE:
                call.arrived(data)
            elif kind == END:
                call.queue(0, None)
            elif kind == CANCEL:
                call.cancel()
            elif kind == GRANT:
                call.grant(CREDIT.unpack(data)[0])

    def send(self, number, kind, *parts):
        self.transport.writelines((HEAD.pack(sum(map(len, parts)), number, kind), *parts))


class Call:
    """One RPC: to drivers, what gRPC has as the context of a servicer."""

    def __init__(self, wire, number, opening):
        self.wire, self.number, self.method = wire, number, opening["method"]
        self.metadata = tuple(
            (key, base64.b64decode(value) if key.endswith("-bin") else value)
            for key, value in opening.get("metadata") or ()
        )
        seconds = opening.get("seconds")
        self.deadline = time.monotonic() + seconds if seconds else None
        self.task, self.logger = None, logging.getLogger("jumpstarter")
        self.over = self.cut = False  # the status was sent; nobody waits for it
        self.headed = False
        self.status, self.text, self.trailer = grpc.StatusCode.OK, "", ()
        self.callbacks = []
        self.inbox, self.waiter, self.owed = collections.deque(), None, 0
        self.window, self.granted = WINDOW, asyncio.Event()
        self.granted.set()

    # What comes.

    def start(self, work):
        self.task = self.wire.loop.create_task(self.run(work))
        self.wire.tasks.add(self.task)
        self.task.add_done_callback(self.wire.tasks.discard)

    def arrived(self, data):
        if self.method == "Stream":
            size, first = len(data), data[0] if len(data) else 0
            if first == 0x0A:  # what every frame of data looks like: its length, and the bytes
                at, length, shift = 1, 0, 0
                while True:
                    byte = data[at]
                    length |= (byte & 0x7F) << shift
                    at, shift = at + 1, shift + 7
                    if byte < 0x80:
                        break
                if at + length == size:
                    return self.queue(size, bytes(data[at:]))
            frame = router_pb2.StreamRequest.FromString(bytes(data))
            if frame.frame_type == router_pb2.FRAME_TYPE_DATA:
                self.queue(size, frame.payload)
            elif frame.frame_type == router_pb2.FRAME_TYPE_GOAWAY:
                self.queue(size, None)
        elif self.task is None:
            self.start(self.unary(bytes(data)) if self.method == "DriverCall" else self.sequence(bytes(data)))

    def queue(self, size, payload):
        self.inbox.append((size, payload))
        if self.waiter and not self.waiter.done():
            self.waiter.set_result(None)

    async def receive(self):
        """The next payload, or None at the end of the stream."""
        while not self.inbox:
            self.waiter = self.wire.loop.create_future()
            await self.waiter
        size, payload = self.inbox[0]
        if payload is not None:  # the end stays where it is
            self.inbox.popleft()
            self.owed += size
            if self.owed >= WINDOW // 2:
                self.wire.send(self.number, GRANT, CREDIT.pack(self.owed))
                self.owed = 0
        return payload

    def grant(self, n):
        self.window += n
        if self.window > 0:
            self.granted.set()

    def cancel(self):
        self.cut = True
        self.finish()
        if self.task and not self.task.done():
            self.task.cancel()

    # What is sent.

    def headers(self, metadata=()):
        if not self.headed and not self.over:
            self.headed = True
            if metadata := plain_metadata(metadata):
                self.wire.send(self.number, HEADERS, json.dumps(metadata).encode())
            elif self.method != "DriverCall":
                self.wire.send(self.number, HEADERS, b"[]")

    async def message(self, *parts):
        await self.granted.wait()
        self.headers()
        if not self.over:
            self.window -= sum(map(len, parts))
            if self.window <= 0:
                self.granted.clear()
            self.wire.send(self.number, MESSAGE, *parts)

    def end(self, code, text="", trailer=()):
        """Sends the status, if it is the first."""
        if self.over:
            return
        code, trailer = code.value[0] if isinstance(code, grpc.StatusCode) else code, trailer or self.trailer
        closing = b""
        if code or trailer:
            closing = json.dumps(dict(code=code, message=text, metadata=plain_metadata(trailer))).encode()
        self.wire.send(self.number, STATUS, closing)
        self.finish()

    def finish(self):
        if self.over:
            return
        self.over = True
        self.granted.set()
        self.wire.calls.pop(self.number, None)
        for callback in self.callbacks:
            self.wire.loop.call_soon(callback, self)

    # The work.

    async def run(self, work):
        try:
            await work
            self.end(self.status, self.text)
        except asyncio.CancelledError:
            self.end(grpc.StatusCode.CANCELLED)
            raise
        except grpc.aio.AbortError:
            self.end(grpc.StatusCode.UNKNOWN)
        except BaseException as e:  # SystemExit, too: it is the driver's, not the others'
            if not self.over:
                self.logger.error("%s failed: %s", self.method, describe(e))
            self.end(grpc.StatusCode.UNKNOWN, f"Unexpected {type(e)}: {e}")

    async def unary(self, data):
        answer = await self.wire.session.DriverCall(jumpstarter_pb2.DriverCallRequest.FromString(data), self)
        if self.status != grpc.StatusCode.OK or self.over:
            return
        data = answer.SerializeToString()
        if self.trailer:
            return await self.message(data)
        self.headers()
        number = self.number
        self.wire.transport.writelines((HEAD.pack(len(data), number, MESSAGE), data, HEAD.pack(0, number, STATUS)))
        self.finish()

    async def sequence(self, data):
        request = jumpstarter_pb2.StreamingDriverCallRequest.FromString(data)
        async for answer in self.wire.session.StreamingDriverCall(request, self):
            await self.message(answer.SerializeToString())

    async def stream(self):
        request = StreamRequestMetadata(**dict(self.metadata)).request
        driver = self.wire.session[request.uuid]
        self.logger = getattr(driver, "logger", self.logger)
        async with driver.Stream(request, self) as far:
            metadata = {}
            with suppress(TypedAttributeLookupError):
                metadata = far.extra(MetadataStreamAttributes.metadata)
            self.headers(metadata.items())
            async with forward_stream(Frames(self), far):
                await asyncio.Event().wait()  # until it is canceled: that is up to the client

    # What gRPC's context has.

    async def abort(self, code, details="", trailing_metadata=()):
        if not details and isinstance(sys.exc_info()[1], MemoryError):  # which says nothing
            details = "MemoryError"
        if self.over:
            raise grpc.aio.UsageError("the RPC is over")
        self.end(grpc.StatusCode.UNKNOWN if code == grpc.StatusCode.OK else code, details, trailing_metadata)
        raise grpc.aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status):
        await self.abort(status.code, status.details, status.trailing_metadata)

    async def send_initial_metadata(self, metadata):
        self.headers(metadata)

    def set_code(self, code):
        self.status = code

    def set_details(self, details):
        self.text = details

    def set_trailing_metadata(self, metadata):
        self.trailer = metadata

    def code(self):
        return self.status

    def details(self):
        return self.text

    def trailing_metadata(self):
        return self.trailer

    def invocation_metadata(self):
        return self.metadata

    def time_remaining(self):
        return None if self.deadline is None else max(0, self.deadline - time.monotonic())

    def add_done_callback(self, callback):
        self.callbacks.append(callback)

    def done(self):
        return self.over

    def cancelled(self):
        return self.cut

    def peer(self):
        return "unix:"

    def peer_identities(self):
        return None

    def peer_identity_key(self):
        return None

    def auth_context(self):
        return {}

    def set_compression(self, _):
        pass

    def disable_next_message_compression(self):
        pass


class Frames(ObjectStream):
    """The client's end of a stream."""

    def __init__(self, call):
        self.call = call

    async def send(self, payload):
        size, head = len(payload), bytearray(b"\x0a")
        if not size:
            return await self.call.message(b"")
        while size > 0x7F:
            head.append(size & 0x7F | 0x80)
            size >>= 7
        head.append(size)
        await self.call.message(head, payload)

    async def receive(self):
        if (payload := await self.call.receive()) is None:
            raise EndOfStream
        return payload

    async def send_eof(self):
        await self.call.message(GOAWAY)

    async def aclose(self):
        if not self.call.over:
            await self.send_eof()
            self.call.end(grpc.StatusCode.ABORTED, "RouterStream: aclose")


def answer(tree, line):
    match line["op"]:
        case "look":
            return look(line["type"])
        case "open":
            return dict(reports=tree.open(line["path"], line["decl"]))
        case "close":
            tree.close(line["path"])
        case "reset":
            tree.reset(line["path"])
    return {}


async def main(path):
    tree = Tree()
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    handler = Handler(tree)
    root.addHandler(handler)
    tree.session.update_status(ExporterStatus.LEASE_READY)
    loop, lines = asyncio.get_running_loop(), asyncio.Queue()
    try:
        await loop.create_unix_server(lambda: Wire(tree.session, loop), path)
    except OSError as e:
        give_up("socket", text=f"cannot serve on {path}: {describe(e)}")

    def read():  # a thread of its own: whatever drivers do, the end is noticed
        try:
            for line in told:
                loop.call_soon_threadsafe(lines.put_nowait, json.loads(line))
        finally:
            loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    say(ready=dict(python=sys.version.split()[0], program=sys.executable))
    # Drivers are made in the thread of the loop, as the stock exporter does.
    while (line := await lines.get()) is not None:
        try:
            reply = answer(tree, line)
        except Refused as e:
            reply = dict(error=e.answer)
        except BaseException as e:
            reply = dict(error=dict(kind="driver", text=describe(e)))
        say(id=line["id"], **reply)
    tree.end()
    handler.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of drivers may go on for ever


asyncio.run(main(sys.argv[1]))
