"""Asks the stock release for its drivers, and drivers for what they can do.

    packages.py classes           the driver classes of all packages, as JSON
    packages.py build             of a JSON object of nodes on standard input: what
                                  the stock package says that cannot make them
    packages.py peers FOLDER      what drivers talk to; prints the ports as JSON, and
                                  serves until standard input ends
    packages.py calls ADDRESS FOLDER
                                  evaluates the expressions of a JSON object on
                                  standard input with the clients of an exporter
"""

import importlib
import inspect
import json
import os
import pkgutil
import pprint
import socket
import socketserver
import struct
import sys
import threading
import time
import traceback
import urllib.request
from contextlib import ExitStack


def describe(e):
    """An exception in one line."""
    text = " ".join(str(e).split())
    return f"{type(e).__name__}: {text}" if text else type(e).__name__


def classes():
    from jumpstarter.driver import Driver

    found, failed = {}, {}
    for package in pkgutil.iter_modules():
        if not package.name.startswith("jumpstarter_driver_"):
            continue
        here = found.setdefault(package.name, [])
        for m in pkgutil.walk_packages(importlib.import_module(package.name).__path__, package.name + "."):
            if m.name.endswith(("_test", ".conftest", "__main__")) or ".examples" in m.name:
                continue
            try:
                module = importlib.import_module(m.name)
            except BaseException as e:
                failed[m.name] = describe(e)
                continue
            for name, v in vars(module).items():
                if inspect.isclass(v) and issubclass(v, Driver) and v.__module__ == m.name and not inspect.isabstract(v):
                    here.append(f"{m.name}.{name}")
    return dict(found=found, failed=failed)


def build(nodes):
    """Makes each in a process of its own, as some are never the same afterwards."""
    from jumpstarter.config.exporter import ExporterConfigV1Alpha1DriverInstance as Instance

    for node in nodes.values():  # once for all
        try:
            importlib.import_module(node["type"].rpartition(".")[0])
        except Exception:
            pass
    said = {}
    for name, node in nodes.items():
        r, w = os.pipe()
        if (pid := os.fork()) == 0:
            try:
                Instance.model_validate(node).instantiate()
                text = ""
            except BaseException as e:
                text = describe(e)
            os.write(w, text.encode())
            os._exit(0)
        os.close(w)
        with os.fdopen(r, "rb") as f:
            said[name] = f.read().decode()
        os.waitpid(pid, 0)
    return said


# What drivers talk to.


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)


class EchoDatagram(socketserver.BaseRequestHandler):
    def handle(self):
        data, s = self.request
        s.sendto(data, self.client_address)


ASKED = []  # of the HTTP server


class HTTP(socketserver.StreamRequestHandler):
    def handle(self):
        method, path, _ = self.rfile.readline().decode().split()
        size, auth = 0, ""
        while line := self.rfile.readline().decode().strip():
            key, _, value = line.partition(": ")
            size = int(value) if key.lower() == "content-length" else size
            auth = value if key.lower() == "authorization" else auth
        body = self.rfile.read(size).decode()
        if path == "/asked":
            answer = json.dumps(ASKED)
            ASKED.clear()
        else:
            ASKED.append([method, path, body, auth])
            answer = json.dumps(dict(v=5.25, c=0.5))
        self.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\nConnection: close\r\n\r\n{answer}".encode())


class MQTT(socketserver.StreamRequestHandler):
    """A broker for one client that switches what answers on another topic."""

    def packet(self):
        if not (head := self.rfile.read(1)):
            return None, b""
        size, shift = 0, 0
        while True:
            b = self.rfile.read(1)[0]
            size |= (b & 0x7F) << shift
            shift += 7
            if b < 0x80:
                return head[0], self.rfile.read(size)

    def send(self, kind, body):
        self.wfile.write(bytes([kind, len(body)]) + body)

    def handle(self):
        while True:
            head, body = self.packet()
            match (head or 0) >> 4:
                case 1:  # CONNECT
                    self.send(0x20, b"\0\0")
                case 8:  # SUBSCRIBE
                    self.send(0x90, body[:2] + b"\0")
                case 3:  # PUBLISH
                    n = struct.unpack_from("!H", body)[0]
                    topic, at = body[2 : 2 + n], 2 + n
                    if head & 6:
                        self.send(0x40, body[at : at + 2])
                        at += 2
                    answer = topic.replace(b"cmnd", b"stat")
                    self.send(0x30, struct.pack("!H", len(answer)) + answer + body[at:])
                case 12:  # PINGREQ
                    self.send(0xD0, b"")
                case 0 | 14:
                    return


def peers(folder):
    from jumpstarter_driver_doip.conftest import MockDoIPServer
    from jumpstarter_driver_someip.conftest import MockSomeIpServer
    from jumpstarter_driver_uds_doip.conftest import MockDoIPUdsServer

    def patient(mock):
        """One that does not hang up on who says nothing for a second."""

        class Patient(mock):
            def _handle_client(self, conn):
                conn.settimeout(None)
                super()._handle_client(conn)

        return Patient()

    socketserver.ThreadingTCPServer.daemon_threads = True
    ports = {}
    for name, handler in dict(echo=Echo, http=HTTP, mqtt=MQTT).items():
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
        ports[name] = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
    server = socketserver.UDPServer(("127.0.0.1", 0), EchoDatagram)
    ports["udp"] = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ports["unix"] = os.path.join(folder, "echo")
    server = socketserver.ThreadingUnixStreamServer(ports["unix"], Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    mocks = dict(doip=patient(MockDoIPServer), uds=patient(MockDoIPUdsServer), someip=patient(MockSomeIpServer))
    ports |= {name: mock.port for name, mock in mocks.items()}
    free = []
    for i in range(1, 6):
        s = socket.socket()
        s.bind(("127.0.0.1", 0))
        ports[f"free{i}"] = s.getsockname()[1]
        free.append(s)
    for s in free:
        s.close()
    print(json.dumps(ports), flush=True)
    sys.stdin.read()
    os._exit(0)


# What the expressions call.


def asked(http):
    return json.loads(get(f"http://127.0.0.1:{http}/asked"))


def get(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(url, timeout=5).read().decode()


def echoes(client):
    """What a stream answers with."""
    with client.stream() as stream:
        stream.send(b"hello")
        data = b""
        while len(data) < 5:
            data += stream.receive()
        return data


def banner(client):
    """How the stream of an SSH server begins."""
    with client.stream() as stream:
        return stream.receive()[:8]


def frame(m):
    return hex(m.arbitration_id), bytes(m.data), m.is_extended_id


def periodic(one, other):
    import can

    task = one.send_periodic(can.Message(arbitration_id=0x10, is_extended_id=False, data=[9]), 0.02, 1)
    got = [other.recv(2) for _ in range(3)]
    task.stop()
    return [m and frame(m) for m in got]


def answered(bus, call):
    """A UDS request of one frame, and the answer of somebody else on the bus."""
    import can

    result = []
    t = threading.Thread(target=lambda: result.append(outcome(call)))
    t.start()
    request = bus.recv(5)
    service = request.data[1]
    bus.send(can.Message(arbitration_id=0x7E8, is_extended_id=False, data=[2, service + 0x40, 0]))
    t.join(10)
    return frame(request), result


def tftp_get(server, name):
    """Fetches the first blocks of a file."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.sendto(b"\0\1" + name.encode() + b"\0octet\0", (server.get_host(), int(server.get_port())))
        size = 0
        while True:
            data, where = s.recvfrom(1000)
            if data[1] != 3:
                return data
            s.sendto(b"\0\4" + data[2:4], where)
            size += len(data) - 4
            if len(data) < 516:
                return size


def outcome(call):
    try:
        value = call()
        value = value() if inspect.ismethod(value) else value
        return pprint.pformat(value, width=10**6)  # as repr, with the keys in order
    except Exception as e:
        if os.environ.get("PACKAGES_TRACE"):
            traceback.print_exc()
        return f"{type(e).__module__}.{describe(e)}"


def calls(address, folder):
    import can
    from anyio.from_thread import start_blocking_portal

    from jumpstarter.client import client_from_path
    from jumpstarter.common import ExporterStatus

    asks = json.load(sys.stdin)

    def file(name, data):
        path = os.path.join(folder, name)
        with open(path, "wb") as f:
            f.write(data)
        return path

    def dumped(client):
        path = os.path.join(folder, "dump")
        client.dump(path)
        with open(path, "rb") as f:
            return len(f.read())

    with start_blocking_portal() as portal, ExitStack() as stack:
        tree = client_from_path(address, portal, stack, allow=[], unsafe=True, insecure=True)
        with portal.wrap_async_context_manager(tree) as root:
            deadline = time.monotonic() + 30
            while portal.call(root.get_status_async) != ExporterStatus.LEASE_READY and time.monotonic() < deadline:
                time.sleep(0.05)
            names = dict(globals(), can=can, file=file, dumped=dumped, **root.children)
            names["asked"] = lambda: asked(asks["http"])
            for expression in asks["calls"]:
                began = time.monotonic()
                said = outcome(lambda: eval(expression, names))
                took = time.monotonic() - began
                print(json.dumps(dict(call=expression, said=said, took=took)), flush=True)
    sys.stdout.flush()
    os._exit(0)


match sys.argv[1:]:
    case ["classes"]:
        print(json.dumps(classes()))
    case ["build"]:
        print(json.dumps(build(json.load(sys.stdin))))
    case ["peers", folder]:
        peers(folder)
    case ["calls", address, folder]:
        calls(address, folder)
