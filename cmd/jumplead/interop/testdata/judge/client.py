"""The two clients of the judge: the stock one, and bare gRPC beneath it.

What the stock client shows is what matters. But it hides things (which status
code, which frame), waits for ever where it was promised an answer, and cannot
be made to send what no client should send. For those there is bare gRPC with
the stock release's own generated messages.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
from anyio import EndOfStream
from anyio.from_thread import start_blocking_portal
from google.protobuf import empty_pb2, json_format, struct_pb2
from jumpstarter_protocol import jumpstarter_pb2, jumpstarter_pb2_grpc, router_pb2, router_pb2_grpc

from jumpstarter.client import client_from_path

DATA, RST_STREAM, PING, GOAWAY = 0, 3, 6, 7
EMPTY = empty_pb2.Empty()
CLIENT, NAME = "jumpstarter.dev/client", "jumpstarter.dev/name"

# Seconds for what takes none on an idle machine.
PATIENCE = 15


def value(v):
    """A google.protobuf.Value, with no opinion about what may be sent."""
    if v is None:
        return struct_pb2.Value(null_value=0)
    if isinstance(v, bool):
        return struct_pb2.Value(bool_value=v)
    if isinstance(v, (int, float)):
        return struct_pb2.Value(number_value=v)
    if isinstance(v, (dict, list)):
        return json_format.ParseDict(v, struct_pb2.Value())
    return struct_pb2.Value(string_value=v)


def poll(condition, what, timeout=PATIENCE):
    """Wait until condition() is true, and return what it returned."""
    deadline = time.monotonic() + timeout
    while True:
        if got := condition():
            return got
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {timeout} s")
        time.sleep(0.02)


class Wire:
    """Bare gRPC to one exporter."""

    def __init__(self, address, metadata=(), credentials=None):
        if credentials is None:
            self.channel = grpc.insecure_channel(address)
        else:
            self.channel = grpc.secure_channel(address, credentials)
        self.exporter = jumpstarter_pb2_grpc.ExporterServiceStub(self.channel)
        self.router = router_pb2_grpc.RouterServiceStub(self.channel)
        self.metadata = tuple(metadata)

    def close(self):
        self.channel.close()

    def report(self, timeout=PATIENCE):
        return self.exporter.GetReport(EMPTY, metadata=self.metadata, timeout=timeout)

    def status(self):
        return self.exporter.GetStatus(jumpstarter_pb2.GetStatusRequest(), metadata=self.metadata, timeout=PATIENCE)

    def end_session(self):
        return self.exporter.EndSession(jumpstarter_pb2.EndSessionRequest(), metadata=self.metadata, timeout=PATIENCE)

    def reset(self):
        return self.exporter.Reset(jumpstarter_pb2.ResetRequest(), metadata=self.metadata, timeout=PATIENCE)

    def call(self, uuid, method, *args, timeout=PATIENCE):
        request = jumpstarter_pb2.DriverCallRequest(uuid=uuid, method=method, args=[value(a) for a in args])
        return self.exporter.DriverCall(request, metadata=self.metadata, timeout=timeout).result

    def streaming(self, uuid, method, *args, timeout=PATIENCE):
        request = jumpstarter_pb2.StreamingDriverCallRequest(uuid=uuid, method=method, args=[value(a) for a in args])
        call = self.exporter.StreamingDriverCall(request, metadata=self.metadata, timeout=timeout)
        return [r.result for r in call]

    def logs(self):
        return Logs(self.exporter.LogStream(EMPTY, metadata=self.metadata))

    def stream(self, uuid, method="connect", **more):
        return self.stream_of(json.dumps({"kind": "driver", "uuid": uuid, "method": method} | more))

    def stream_of(self, *requests):
        return Stream(self.router, [("request", r) for r in requests] + list(self.metadata))


class Logs:
    """A LogStream; its records arrive on a thread."""

    def __init__(self, call):
        self.call = call
        self.records = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for record in self.call:
                self.records.append(record)
        except grpc.RpcError:
            pass

    def messages(self):
        return [r.message for r in self.records]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.call.cancel()


class Stream:
    """A RouterService.Stream, frame by frame."""

    def __init__(self, router, metadata):
        self.outgoing = queue.Queue()
        self.incoming = queue.Queue()
        self.ended = threading.Event()
        self.call = router.Stream(iter(self.outgoing.get, None), metadata=metadata)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for frame in self.call:
                self.incoming.put(frame)
        except grpc.RpcError:
            pass
        self.ended.set()
        self.incoming.put(None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.outgoing.put(None)
        self.call.cancel()

    def initial(self, timeout=PATIENCE):
        """The initial metadata, which must come before any frame."""
        box = queue.Queue()
        threading.Thread(target=lambda: box.put(self.call.initial_metadata()), daemon=True).start()
        try:
            return {m.key: m.value for m in box.get(timeout=timeout)}
        except queue.Empty:
            raise AssertionError("no initial metadata") from None

    def send(self, payload=b"", frame=DATA):
        self.outgoing.put(router_pb2.StreamRequest(payload=payload, frame_type=frame))

    def finish(self):
        """What the stock client does when it has written everything."""
        self.send(frame=GOAWAY)
        self.outgoing.put(None)

    def frame(self, timeout=PATIENCE):
        """The next frame, or None at the end of the call."""
        try:
            return self.incoming.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"no frame and no end within {timeout} s") from None

    def read(self, count, timeout=PATIENCE):
        data = b""
        while len(data) < count:
            frame = self.frame(timeout)
            if frame is None or frame.frame_type == GOAWAY:
                raise AssertionError(f"the stream ended after {data!r}, want {count} bytes")
            data += frame.payload
        return data

    def read_end(self, timeout=PATIENCE):
        """Read to GOAWAY or the end of the call; the bytes before it."""
        data = b""
        while (frame := self.frame(timeout)) is not None and frame.frame_type != GOAWAY:
            data += frame.payload
        return data

    def code(self, timeout=PATIENCE):
        """The status code with which the call ended."""
        if not self.ended.wait(timeout):
            raise AssertionError(f"the call is still open after {timeout} s")
        return self.call.code()

    def details(self):
        return self.call.details()


def within(portal, timeout, what, function, *args):
    """What an async function returns, or a failure if it takes too long."""
    future = portal.start_task_soon(function, *args)
    try:
        return future.result(timeout)
    except FutureTimeout:
        future.cancel()
        raise AssertionError(f"{what}: nothing within {timeout} s") from None


class Pipe:
    """A byte stream of the stock client, with deadlines."""

    def __init__(self, portal, stream):
        self.portal = portal
        self.stream = stream

    def _wait(self, timeout, what, function, *args):
        return within(self.portal, timeout, what, function, *args)

    def send(self, data, timeout=PATIENCE):
        self._wait(timeout, "send", self.stream.send, data)

    def finish(self, timeout=PATIENCE):
        self._wait(timeout, "send_eof", self.stream.send_eof)

    def receive(self, timeout=PATIENCE):
        return self._wait(timeout, "receive", self.stream.receive)

    def read(self, count, timeout=PATIENCE):
        data = b""
        while len(data) < count:
            try:
                data += self.receive(timeout)
            except EndOfStream:
                raise AssertionError(f"the stream ended after {data!r}, want {count} bytes") from None
        return data

    def read_end(self, timeout=PATIENCE):
        data = b""
        while True:
            try:
                data += self.receive(timeout)
            except EndOfStream:
                return data


class Judge:
    """Everything a case has: the peers, the clients, the programs."""

    def __init__(self, where, peers):
        self.where = where
        self.peers = peers
        self.main = where["main"]
        self.programs = Path(sys.executable).parent
        self.stack = ExitStack()

    def __enter__(self):
        self.portal = self.stack.enter_context(start_blocking_portal())
        self.wire = Wire(self.main)
        self.stack.callback(self.wire.close)
        self.client = self.stack.enter_context(self.connect(self.main, insecure=True))
        self.reports = list(self.wire.report().reports)
        return self

    def __exit__(self, *exc):
        return self.stack.__exit__(*exc)

    @contextmanager
    def connect(self, path, *, allow=(), unsafe=True, **how):
        """The stock client's tree, for an address or a Unix socket."""
        with ExitStack() as stack:
            tree = client_from_path(path, self.portal, stack, list(allow), unsafe, **how)
            with self.portal.wrap_async_context_manager(tree) as client:
                yield client

    @contextmanager
    def pipe(self, client, method="connect"):
        with self.portal.wrap_async_context_manager(client.stream_async(method)) as stream:
            yield Pipe(self.portal, stream)

    def report(self, name, parent=None):
        """The report of a child of the root, or of another report."""
        parent = parent or self.reports[0]
        for r in self.reports:
            if r.labels.get(NAME) == name and r.parent_uuid == parent.uuid:
                return r
        raise AssertionError(f"no report of {name} under {parent.uuid}")

    def uuid(self, name):
        return self.report(name).uuid

    def credentials(self):
        """Those that trust the certificate of the exporter with TLS."""
        return grpc.ssl_channel_credentials(Path(self.where["ca"]).read_bytes())

    # Programs.

    def environment(self, **more):
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("JMP_", "JUMPSTARTER_")) and not k.lower().endswith("_proxy")
        }
        kept["PATH"] = f"{self.programs}:{kept['PATH']}"
        kept["TERM"] = "dumb"
        kept["COLUMNS"] = "200"
        kept["HOME"] = kept["XDG_CONFIG_HOME"] = kept["XDG_RUNTIME_DIR"] = self.peers.folder
        return kept | more

    def lease(self, **more):
        """The environment that `jmp shell` gives its children."""
        return self.environment(
            JUMPSTARTER_HOST=self.main, JMP_GRPC_INSECURE="1", JMP_DRIVERS_ALLOW="UNSAFE", **more
        )

    def run(self, *argv, env=None, stdin="", status=0, timeout=90):
        """Run a program of the stock release; its output, both kinds."""
        got = subprocess.run(
            [self.programs / argv[0], *argv[1:]],
            env=self.lease() if env is None else env,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        if got.returncode != status:
            raise AssertionError(f"{' '.join(argv)}: exit status {got.returncode}, want {status}\n{got.stdout}")
        return got.stdout

    def start(self, *argv, **more):
        return subprocess.Popen(
            [self.programs / argv[0], *argv[1:]],
            env=self.lease(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **more,
        )


def same(what, got, want):
    if got != want:
        raise AssertionError(f"{what} = {got!r}; want {want!r}")


# How a stream fails to open whose device or peer is not there: the stock
# exporter has one status for all failures to open, ours says which it is.
ABSENT = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE)


def one_of(what, got, want):
    if got not in want:
        raise AssertionError(f"{what} = {got!r}; want one of {want!r}")


def refused(what, codes, call, *args, **more):
    """Require that a call fails with one of the codes; the error."""
    codes = {codes} if isinstance(codes, grpc.StatusCode) else set(codes)
    try:
        got = call(*args, **more)
    except grpc.RpcError as e:
        if e.code() not in codes:
            raise AssertionError(
                f"{what}: {e.code().name} {e.details()!r}; want {sorted(c.name for c in codes)}"
            ) from None
        return e
    raise AssertionError(f"{what} = {got!r}; want {sorted(c.name for c in codes)}")


def heart(e):
    """What happened, without the groups that a client's tasks wrap it in."""
    while isinstance(e, BaseExceptionGroup) and len(e.exceptions) == 1:
        e = e.exceptions[0]
    return e


def raises(what, kind, call, *args):
    try:
        got = call(*args)
    except Exception as e:
        e = heart(e)
        if isinstance(e, kind):
            return e
        if isinstance(e, AssertionError):
            raise e from None
        raise AssertionError(f"{what}: {type(e).__name__}: {e}; want {kind.__name__}") from None
    raise AssertionError(f"{what} = {got!r}; want {kind.__name__}")
