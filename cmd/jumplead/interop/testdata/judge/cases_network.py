"""The networks of harnesses beyond sockets: WebSocket, D-Bus, vsock, and VNC."""

import os
import socket
import struct

from client import raises, same
from jumpstarter_driver_network.adapters import TcpPortforwardAdapter
from peers import read_exactly
from table import case
from websockets.exceptions import ConnectionClosed

SIZES = (1, 125, 126, 65535, 65536, 1 << 20)


@case("websocket/messages")
def _(j):
    """A message is a chunk, in both directions."""
    with j.pipe(j.client.websocket) as s:
        with j.peers.sockets.accept() as peer:
            same("the path asked for", peer.request.path, "/path?query")
            for n in SIZES:
                s.send(bytes([n % 251]) * n)
                same(f"the peer's message of {n}", peer.recv(15) == bytes([n % 251]) * n, True)
                peer.send(bytes([n % 251]) * n)
                same(f"the client's chunk of {n}", s.receive() == bytes([n % 251]) * n, True)
            for piece in (b"a", b"bc", b"def"):
                peer.send(piece)
            same("three messages", [s.receive(), s.receive(), s.receive()], [b"a", b"bc", b"def"])


@case("websocket/text", defect="a message of text ends the stream", shows="EndOfStream")
def _(j):
    with j.pipe(j.client.websocket) as s:
        with j.peers.sockets.accept() as peer:
            peer.send("größe ⚡")
            same("the client's chunk", s.receive(), "größe ⚡".encode())


@case("websocket/the peer closes")
def _(j):
    with j.pipe(j.client.websocket) as s:
        with j.peers.sockets.accept() as peer:
            peer.send(b"bye")
        same("the client's read to the end", s.read_end(), b"bye")


@case("websocket/the client has written everything")
def _(j):
    with j.pipe(j.client.websocket) as s:
        with j.peers.sockets.accept() as peer:
            s.send(b"x")
            same("the peer's message", peer.recv(15), b"x")
            # There is no half-close: a peer may go on after the client's end.
            s.finish()
            peer.send(b"y")
            same("the client's chunk", s.receive(), b"y")


@case("websocket/the client goes away")
def _(j):
    s = j.wire.stream(j.uuid("websocket"))
    s.initial()
    with j.peers.sockets.accept() as peer:
        s.send(b"x")
        same("the peer's message", peer.recv(15), b"x")
        s.call.cancel()
        raises("the peer's next message", ConnectionClosed, peer.recv, 15)


@case("websocket/adapter")
def _(j):
    same("address()", j.client.websocket.address(), j.peers.sockets.url)
    with TcpPortforwardAdapter(client=j.client.websocket) as address:
        with socket.create_connection(address, timeout=15) as here, j.peers.sockets.accept() as peer:
            here.sendall(b"hello")
            same("the peer's message", peer.recv(15), b"hello")
            peer.send(b"world")
            same("the local read", read_exactly(here, 5), b"world")


def marshal(serial, member):
    """A D-Bus method call to the bus itself, without arguments."""
    head = struct.pack("<cBBBII", b"l", 1, 0, 1, 0, serial)
    body = b""
    for code, kind, text in (
        (1, "o", "/org/freedesktop/DBus"),
        (2, "s", "org.freedesktop.DBus"),
        (3, "s", member),
        (6, "s", "org.freedesktop.DBus"),
    ):
        body += b"\0" * (-len(body) % 8)
        body += struct.pack("<BB2sI", code, 1, kind.encode() + b"\0", len(text)) + text.encode() + b"\0"
    message = head + struct.pack("<I", len(body)) + body
    return message + b"\0" * (-len(message) % 8)


@case("dbus/adapter", needs="dbus")
def _(j):
    """What a D-Bus client does with the address that the stock client sets."""
    same("the kind of bus", j.client.bus.kind, "session")
    before = os.environ.get("DBUS_SESSION_BUS_ADDRESS")
    with j.client.bus:
        scheme, _, rest = os.environ["DBUS_SESSION_BUS_ADDRESS"].partition(":")
        same("the scheme of the address", scheme, "tcp")
        where = dict(part.split("=") for part in rest.split(","))
        with socket.create_connection((where["host"], int(where["port"])), timeout=15) as bus:
            bus.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
            same("the bus's answer", read_exactly(bus, 3), b"OK ")
            while read_exactly(bus, 1) != b"\n":
                pass
            bus.sendall(b"BEGIN\r\n" + marshal(1, "Hello"))
            got = b""
            while b":1." not in got:  # the name that the bus gives to a connection
                got += read_exactly(bus, 1)
    same("the address afterwards", os.environ.get("DBUS_SESSION_BUS_ADDRESS"), before)


@case("vsock/stream", needs="vsock")
def _(j):
    with j.pipe(j.client.vsock) as s:
        peer = j.peers.vsock.accept()
        s.send(b"hello")
        same("the peer's read", read_exactly(peer, 5), b"hello")
        peer.sendall(b"world")
        same("the client's read", s.read(5), b"world")
        s.finish()
        same("the peer's end", peer.recv(1), b"")
        peer.sendall(b"bye")
        peer.close()
        same("the client's read to the end", s.read_end(), b"bye")


@case("vsock/adapter", needs="vsock")
def _(j):
    with TcpPortforwardAdapter(client=j.client.vsock) as address:
        with socket.create_connection(address, timeout=15) as here:
            there = j.peers.vsock.accept()
            here.sendall(b"hello")
            same("the peer's read", read_exactly(there, 5), b"hello")
            there.sendall(b"world")
            there.close()
            same("the local read to the end", read_exactly(here, 5) + here.recv(1), b"world")


@case("vnc/session")
def _(j):
    same("get_default_encrypt()", j.client.vnc.get_default_encrypt(), True)
    with j.pipe(j.client.vnc.tcp) as s:
        s.send(b"RFB 003.008\n")
        same("the display's bytes", s.read(12), b"RFB 003.008\n")
