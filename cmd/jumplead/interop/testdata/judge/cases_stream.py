"""Byte streams: TCP, UDP, Unix, echo, serial, and the frames beneath."""

import json
import socket
import time
import uuid

from client import ABSENT, DATA, GOAWAY, PING, RST_STREAM, one_of, same
from grpc import StatusCode as Code
from jumpstarter_driver_network.adapters import PexpectAdapter, TcpPortforwardAdapter, UnixPortforwardAdapter
from peers import read_exactly, reset
from table import case

PATTERN = bytes(range(256)) * 4096  # 1 MiB in which a lost or doubled piece shows


def ends(conn, timeout=15):
    """Require that the exporter closed its connection to a peer."""
    conn.settimeout(timeout)
    try:
        got = conn.recv(1)
    except ConnectionResetError:
        return
    except TimeoutError:
        raise AssertionError(f"the exporter kept its connection for {timeout} s") from None
    same("the peer's read", got, b"")


@case("stream/tcp")
def _(j):
    with j.pipe(j.client.tcp) as s:
        peer = j.peers.tcp.accept()
        s.send(b"hello")
        same("the peer's read", read_exactly(peer, 5), b"hello")
        peer.sendall(b"world")
        same("the client's read", s.read(5), b"world")
    ends(peer)


@case("stream/tcp, much")
def _(j):
    with j.pipe(j.client.mirror) as s:
        got = b""
        for i in range(0, len(PATTERN), 65536):
            s.send(PATTERN[i : i + 65536])
            got += s.read(65536)
        same("the pattern came back", got == PATTERN, True)
    with j.pipe(j.client.tcp) as s:
        peer = j.peers.tcp.accept()
        # One message as large as gRPC lets it be.
        s.send(PATTERN + PATTERN + PATTERN)
        same("the pattern went up thrice", read_exactly(peer, 3 * len(PATTERN)) == PATTERN * 3, True)


@case("stream/tcp, several at once")
def _(j):
    with j.pipe(j.client.tcp) as one:
        first = j.peers.tcp.accept()
        with j.pipe(j.client.tcp) as two:
            second = j.peers.tcp.accept()
            one.send(b"one")
            two.send(b"two")
            same("the first peer's read", read_exactly(first, 3), b"one")
            same("the second peer's read", read_exactly(second, 3), b"two")
        ends(second)
        first.sendall(b"still")
        same("the first client's read", one.read(5), b"still")


@case("stream/tcp, the client has written everything")
def _(j):
    with j.pipe(j.client.tcp) as s:
        peer = j.peers.tcp.accept()
        s.send(b"all of it")
        s.finish()
        same("the peer's read", read_exactly(peer, 9), b"all of it")
        same("its end", peer.recv(1), b"")
        peer.sendall(b"an answer")
        peer.close()
        same("the client's read to the end", s.read_end(), b"an answer")


@case("stream/tcp, the peer has written everything")
def _(j):
    with j.pipe(j.client.tcp) as s:
        peer = j.peers.tcp.accept()
        peer.sendall(b"greeting")
        peer.shutdown(socket.SHUT_WR)
        same("the client's read to the end", s.read_end(), b"greeting")
        s.send(b"an answer")
        same("the peer's read", read_exactly(peer, 9), b"an answer")


@case("stream/tcp, the client goes away")
def _(j):
    s = j.wire.stream(j.uuid("tcp"))
    s.initial()
    peer = j.peers.tcp.accept()
    peer.sendall(b"x")
    same("the client's read", s.read(1), b"x")
    s.call.cancel()
    ends(peer)


@case(
    "stream/tcp, the peer resets",
    defect="a TCP peer's reset gives the client neither GOAWAY nor a status: it waits for ever",
    shows="no frame and no end",
)
def _(j):
    with j.wire.stream(j.uuid("tcp")) as s:
        s.initial()
        peer = j.peers.tcp.accept()
        s.send(b"x")
        same("the peer's read", read_exactly(peer, 1), b"x")
        reset(peer)
        same("the client's read to the end", s.read_end(timeout=3), b"")


@case("stream/tcp, refused")
def _(j):
    with j.wire.stream(j.uuid("refused")) as s:
        one_of("the status", s.code(), ABSENT)
        same("the bytes before it", s.read_end(), b"")
    try:
        with j.pipe(j.client.refused) as s:
            s.receive()
    except AssertionError:
        raise
    except Exception:
        return  # the stock client has no name for it
    raise AssertionError("a stream to a port that refuses opened")


@case("stream/udp")
def _(j):
    """One chunk is one datagram, in both directions."""
    with j.pipe(j.client.udp) as s:
        sizes = (1, 2, 700, 1, 9000, 60000)
        for n in sizes:
            s.send(bytes([n % 251]) * n)
        got, home = [], None
        for _ in sizes:
            datagram, home = j.peers.udp.recvfrom(65536)
            got.append(datagram)
        same("the peer's datagrams", [(len(d), set(d)) for d in got], [(n, {n % 251}) for n in sizes])
        for n in sizes:
            j.peers.udp.sendto(bytes([n % 251]) * n, home)
            same(f"the client's chunk of {n}", s.receive() == bytes([n % 251]) * n, True)
        for piece in (b"a", b"bc", b"def"):
            j.peers.udp.sendto(piece, home)
        same("three datagrams", [s.receive(), s.receive(), s.receive()], [b"a", b"bc", b"def"])


@case("stream/unix")
def _(j):
    with j.pipe(j.client.unix) as s:
        peer = j.peers.unix.accept()
        s.send(b"hello")
        same("the peer's read", read_exactly(peer, 5), b"hello")
        peer.sendall(b"world")
        same("the client's read", s.read(5), b"world")
        s.finish()
        same("the peer's end", peer.recv(1), b"")
        peer.sendall(b"bye")
        peer.close()
        same("the client's read to the end", s.read_end(), b"bye")


@case("stream/echo")
def _(j):
    for client in (j.client.echo, j.client.group.deeper.echo, j.client.wing.echo):
        with j.pipe(client) as s:
            s.send(b"hello")
            same("the client's read", s.read(5), b"hello")
            for piece in (b"a", b"bc", b"d" * 100000):
                s.send(piece)
            same("the pieces", s.read(100003), b"abc" + b"d" * 100000)
            s.finish()
            same("the end", s.read_end(), b"")


@case("stream/serial loop")
def _(j):
    with j.pipe(j.client.serial) as s:
        s.send(b"hello")
        same("the client's read", s.read(5), b"hello")
        # A loop has no connection that close could drop.
        j.client.serial.call("close")
        s.send(b"again")
        same("the client's read after close", s.read(5), b"again")


@case("stream/serial loop, paced")
def _(j):
    text = b"twenty a second"
    with j.pipe(j.client.slow) as s:
        start = time.monotonic()
        s.send(text)
        same("the client's read", s.read(len(text)), text)
        took = time.monotonic() - start
    least = (len(text) - 1) / 20
    if not least * 0.9 <= took <= least * 3 + 1:
        raise AssertionError(f"{len(text)} bytes at 20 a second took {took:.2f} s; want about {least:.2f}")


@case("stream/serial terminal")
def _(j):
    with j.pipe(j.client.tty) as s:
        s.send(b"\x00\x03\x04\r\n\x11\x13\xff")  # what a terminal that was not made raw would eat
        same("the terminal's read", j.peers.terminal.read(8), b"\x00\x03\x04\r\n\x11\x13\xff")
        j.peers.terminal.write(b"\x00\x03\x04\r\n\x11\x13\xff")
        same("the client's read", s.read(8), b"\x00\x03\x04\r\n\x11\x13\xff")
        # A serial line has no half-close: reading goes on.
        s.finish()
        j.peers.terminal.write(b"more")
        same("the client's read after its end", s.read(4), b"more")
    with j.pipe(j.client.tty) as s:
        s.send(b"again")
        same("the terminal's read", j.peers.terminal.read(5), b"again")


@case("stream/serial terminal, closed by a call")
def _(j):
    same("close without a stream", j.client.tty.call("close"), None)
    with j.wire.stream(j.uuid("tty")) as s:
        s.initial()
        s.send(b"x")
        same("the terminal's read", j.peers.terminal.read(1), b"x")
        same("close", j.client.tty.call("close"), None)
        s.read_end(timeout=10)
    with j.pipe(j.client.tty) as s:
        s.send(b"again")
        same("the terminal's read", j.peers.terminal.read(5), b"again")


@case("stream/initial metadata")
def _(j):
    for name in ("echo", "tcp", "udp", "unix", "serial", "tty"):
        with j.wire.stream(j.uuid(name)) as s:
            same(f"of {name}", {k: v for k, v in s.initial().items() if k.startswith(("resource", "x_jmp"))}, {})


@case("stream/both ends have written everything", defect="the exporter never ends a stream's call", shows="still open")
def _(j):
    with j.wire.stream(j.uuid("tcp")) as s:
        s.initial()
        peer = j.peers.tcp.accept()
        s.finish()
        same("the peer's end", peer.recv(1), b"")
        peer.close()
        same("the client's read to the end", s.read_end(), b"")
        same("the status", s.code(timeout=3), Code.OK)


@case("stream/the end of one direction")
def _(j):
    """GOAWAY is sent once, nothing follows it, and the call stays open."""
    with j.wire.stream(j.uuid("tcp")) as s:
        s.initial()
        peer = j.peers.tcp.accept()
        peer.sendall(b"x")
        peer.shutdown(socket.SHUT_WR)
        frames = [s.frame(), s.frame()]
        same("the frames", [(f.frame_type, f.payload) for f in frames], [(DATA, b"x"), (GOAWAY, b"")])
        s.send(b"y")
        same("the peer's read", read_exactly(peer, 1), b"y")
        same("the call has ended", s.ended.is_set(), False)


@case("stream/frames without meaning")
def _(j):
    with j.wire.stream(j.uuid("tcp")) as s:
        s.initial()
        peer = j.peers.tcp.accept()
        s.send(b"a")
        s.send(frame=PING)
        s.send(b"b")
        s.send(frame=RST_STREAM)
        s.send(b"c")
        s.send(frame=99)
        s.send(b"")
        s.send(b"d")
        same("the peer's read", read_exactly(peer, 4), b"abcd")
        peer.sendall(b"back")
        same("the client's read", s.read(4), b"back")


@case("stream/metadata")
def _(j):
    echo = j.uuid("echo")
    good = {"kind": "driver", "uuid": echo, "method": "connect"}
    bad = {
        "no request": (),
        "not JSON": ("{",),
        "not an object": ("[]",),
        "nothing": ("",),
        "no kind": (json.dumps({k: v for k, v in good.items() if k != "kind"}),),
        "no method": (json.dumps({k: v for k, v in good.items() if k != "method"}),),
        "no uuid": (json.dumps({k: v for k, v in good.items() if k != "uuid"}),),
        "another kind": (json.dumps(good | {"kind": "nonsense"}),),
        "a number for a method": (json.dumps(good | {"method": 1}),),
        "a malformed uuid": (json.dumps(good | {"uuid": "nonsense"}),),
        "an unknown uuid": (json.dumps(good | {"uuid": str(uuid.uuid4())}),),
        "a resource of nothing": (json.dumps({"kind": "resource", "uuid": str(uuid.uuid4())}),),
    }
    for what, requests in bad.items():
        with j.wire.stream_of(*requests) as s:
            same(f"the status for {what}", s.code(), Code.UNKNOWN)
            same(f"the initial metadata for {what}", s.initial(), {})
    # What is not asked for does no harm.
    with j.wire.stream(echo, more="than needed") as s:
        s.send(b"x")
        same("the client's read", s.read(1), b"x")


@case("stream/resource")
def _(j):
    """Any driver opens a resource stream.

    An exporter that takes a codec upon itself says so twice, in the handle and
    in the metadata. If it does neither, the client does the work.
    """
    for encoding in (None, "gzip", "xz", "bz2", "zstd"):
        request = {"kind": "resource", "uuid": j.uuid("power"), "x_jmp_content_encoding": encoding}
        with j.wire.stream_of(json.dumps(request)) as s:
            got = s.initial()
            handle = json.loads(got["resource"])
            same("the handle's kind", handle["kind"], "client_stream")
            same("the handle's uuid", str(uuid.UUID(handle["uuid"])), handle["uuid"])
            says = (handle["x_jmp_content_encoding"], got.get("x_jmp_accept_encoding"))
            one_of("the codec in the handle, and accepted", says, ((encoding, encoding or ""), (None, None)))
    with j.wire.stream_of(json.dumps({"kind": "resource", "uuid": j.uuid("power")})) as s:
        same("the handle's codec, unasked", json.loads(s.initial()["resource"])["x_jmp_content_encoding"], None)


@case("stream/size of a frame")
def _(j):
    with j.wire.stream(j.uuid("echo")) as s:
        s.initial()
        s.send(b"x" * (5 << 20))
        same("the status", s.code(), Code.RESOURCE_EXHAUSTED)
    with j.pipe(j.client.echo) as s:
        s.send(b"x")
        same("another stream", s.read(1), b"x")


@case("stream/many, dropped")
def _(j):
    for _ in range(100):
        s = j.wire.stream(j.uuid("mirror"))
        s.send(b"x")
        same("the client's read", s.read(1), b"x")
        s.call.cancel()
    with j.pipe(j.client.mirror) as s:
        s.send(b"x")
        same("one more", s.read(1), b"x")


@case("stream/many at once")
def _(j):
    streams = [j.wire.stream(j.uuid("echo")) for _ in range(60)]
    for i, s in enumerate(streams):
        s.send(bytes([i]))
    for i, s in enumerate(streams):
        same(f"the read of stream {i}", s.read(1), bytes([i]))
    j.client.power.on()
    for s in streams:
        s.call.cancel()


@case("adapter/tcp port")
def _(j):
    with TcpPortforwardAdapter(client=j.client.tcp) as address:
        with socket.create_connection(address, timeout=15) as here:
            there = j.peers.tcp.accept()
            here.sendall(b"hello")
            same("the peer's read", read_exactly(there, 5), b"hello")
            there.sendall(b"world")
            same("the local read", read_exactly(here, 5), b"world")
            here.shutdown(socket.SHUT_WR)
            same("the peer's end", there.recv(1), b"")
            there.sendall(b"bye")
            there.close()
            same("the local read to the end", read_exactly(here, 3) + here.recv(1), b"bye")
        with socket.create_connection(address, timeout=15) as here:
            there = j.peers.tcp.accept()
            there.sendall(b"again")
            same("the second connection's read", read_exactly(here, 5), b"again")


@case(
    "adapter/tcp port, refused",
    defect="a connection forwarded to a stream that does not open stays open",
    shows="timed out",
)
def _(j):
    with TcpPortforwardAdapter(client=j.client.refused) as address:
        with socket.create_connection(address, timeout=3) as here:
            try:
                same("the local read", here.recv(1), b"")
            except ConnectionResetError:
                pass
            except TimeoutError:
                raise AssertionError("the local read timed out") from None


@case("adapter/unix socket")
def _(j):
    with UnixPortforwardAdapter(client=j.client.unix) as path:
        with socket.socket(socket.AF_UNIX) as here:
            here.settimeout(15)
            here.connect(str(path))
            there = j.peers.unix.accept()
            here.sendall(b"hello")
            same("the peer's read", read_exactly(there, 5), b"hello")
            there.sendall(b"world")
            there.close()
            same("the local read to the end", read_exactly(here, 5) + here.recv(1), b"world")


@case("adapter/expect")
def _(j):
    with PexpectAdapter(client=j.client.tty) as console:
        # The adapter opens the line in the background; opening it drops what
        # the device said before.
        console.sendline("")
        same("the terminal's read", j.peers.terminal.read(1), b"\n")
        j.peers.terminal.write(b"login: ")
        console.expect("login: ", timeout=15)
        console.sendline("root")
        same("the terminal's next read", j.peers.terminal.read(5), b"root\n")
    with j.client.serial.pexpect() as console:
        console.sendline("hello")
        console.expect("hello", timeout=15)


@case("adapter/open stream of a client")
def _(j):
    """The way without a context manager, closed by the client's close()."""
    with j.connect(j.main, insecure=True) as client:
        stream = client.mirror.open_stream()
        stream.send(b"hello")
        same("the client's read", stream.receive(), b"hello")
        client.mirror.close()
        try:
            stream.receive()
        except Exception:
            pass
        else:
            raise AssertionError("a closed stream gave something")


@case("adapter/stream of the stock client")
def _(j):
    with j.client.echo.stream() as s:
        s.send(b"hello")
        same("the client's read", s.receive(), b"hello")


@case("stream/tcp, opened again")
def _(j):
    """A client that closes a stream, or whose peer did, has the next at once.

    The stock client does not cancel the call of a stream that it closed before
    the garbage collector does: all that the exporter gets is GOAWAY.
    """
    streams = []
    for i in range(3):
        with j.pipe(j.client.tcp) as s:
            streams.append(s)
            peer = j.peers.tcp.accept()
            peer.close()
            same(f"the client's read to the end, time {i}", s.read_end(), b"")
    for i in range(3):
        with j.pipe(j.client.tcp) as s:
            streams.append(s)
            peer = j.peers.tcp.accept()
            s.send(b"x")
            same(f"the peer's read, time {i}", read_exactly(peer, 1), b"x")
        same(f"the peer's end, time {i}", peer.recv(1), b"")


@case("stream/serial terminal, opened again")
def _(j):
    streams = []
    for i in range(3):
        with j.pipe(j.client.tty) as s:
            streams.append(s)  # so that its call is not cancelled
            s.send(b"x")
            same(f"the terminal's read, time {i}", j.peers.terminal.read(1), b"x")
            j.peers.terminal.write(b"y")
            same(f"the client's read, time {i}", s.read(1), b"y")
