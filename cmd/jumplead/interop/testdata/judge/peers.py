"""What stands behind the exporter: sockets and a terminal of the judge."""

import os
import queue
import select
import shutil
import socket
import struct
import tempfile
import subprocess
import threading
import tty
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import websockets.sync.server


class Listener:
    """A listening socket whose connections a case accepts itself."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.listen(16)
        self.accepted = queue.Queue()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            conn, _ = self.sock.accept()
            conn.settimeout(15)
            self.accepted.put(conn)

    def accept(self, timeout=15):
        try:
            return self.accepted.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError("the exporter did not connect to its peer") from None

    def forget(self):
        """Drop connections that an earlier case left behind."""
        while True:
            try:
                self.accepted.get_nowait().close()
            except queue.Empty:
                return


class Mirror:
    """A TCP server that sends back what it gets."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            conn, _ = self.sock.accept()
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    @staticmethod
    def _serve(conn):
        with conn:
            try:
                while data := conn.recv(65536):
                    conn.sendall(data)
            except OSError:
                pass


class Terminal:
    """The far end of a pseudo terminal that the exporter takes for a tty."""

    def __init__(self):
        self.fd, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.path = os.ttyname(self.slave)

    def read(self, count, timeout=15):
        data = b""
        while len(data) < count:
            if not select.select([self.fd], [], [], timeout)[0]:
                raise AssertionError(f"the terminal got {data!r}, want {count} bytes")
            data += os.read(self.fd, 65536)
        return data

    def read_until(self, end, timeout=15):
        data = b""
        while not data.endswith(end):
            if not select.select([self.fd], [], [], timeout)[0]:
                raise AssertionError(f"the terminal got {data!r}, want {end!r} in the end")
            data += os.read(self.fd, 65536)

    def write(self, data):
        os.write(self.fd, data)

    def forget(self):
        while select.select([self.fd], [], [], 0)[0]:
            os.read(self.fd, 65536)


class Web:
    """An HTTP server: files to get, places to put them, and pages that misbehave."""

    def __init__(self):
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                web.requests.append((self.command, self.path, dict(self.headers)))
                if page := web.pages.get(self.path):
                    page(self)
                elif (data := web.files.get(self.path)) is not None:
                    self.answer(200, data)
                else:
                    self.answer(404, b"nothing here")

            do_HEAD = do_GET

            def do_PUT(self):
                web.requests.append((self.command, self.path, dict(self.headers)))
                data = self.body()
                if page := web.pages.get(self.path):
                    page(self)
                else:
                    web.files[self.path] = data
                    self.answer(201)

            def body(self):
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers["Content-Length"]))
                data = b""
                while size := int(self.rfile.readline(), 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return data

            def answer(self, status, data=b"", **headers):
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(data))} | headers).items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.forget()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def forget(self):
        self.files = {}  # contents by path
        self.pages = {}  # functions of the handler by path
        self.requests = []  # method, path and headers


class Bus:
    """A D-Bus message bus of the judge's own."""

    def __init__(self, folder):
        self.address = f"unix:path={folder}/bus"
        config = os.path.join(folder, "bus.conf")
        with open(config, "w", encoding="utf-8") as f:
            f.write(
                f"<busconfig><type>session</type><listen>{self.address}</listen><auth>EXTERNAL</auth>"
                '<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/>'
                '<allow receive_sender="*"/></policy></busconfig>'
            )
        if shutil.which("dbus-daemon") is None:
            raise FileNotFoundError("there is no program of this name")
        # The shell ends the bus when its input does, also if the judge is killed.
        self.process = subprocess.Popen(
            ["sh", "-c", 'dbus-daemon --nofork --print-address --config-file="$0" & exec >&-; read -r _; kill $!', config],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        # It listens when it has printed its address.
        if not self.process.stdout.readline():
            self.close()
            raise OSError("it did not start")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def local_vsock():
    """A listening socket that a connection to this machine's own CID reaches."""
    sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        sock.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        sock.listen()
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as probe:
            probe.settimeout(2)
            probe.connect((VMADDR_CID_LOCAL, sock.getsockname()[1]))
        sock.accept()[0].close()
    except OSError:
        sock.close()
        raise
    return sock


VMADDR_CID_LOCAL = 1


def local_tcp():
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def reset(conn):
    """Close a TCP connection with a reset instead of an orderly end."""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()


def read_exactly(conn, count):
    data = b""
    while len(data) < count:
        chunk = conn.recv(count - len(data))
        if not chunk:
            raise AssertionError(f"the peer got {len(data)} bytes and the end, want {count}")
        data += chunk
    return data


class Sockets:
    """A WebSocket server: the case says what it does with a connection."""

    def __init__(self):
        self.accepted = queue.Queue()
        self.server = websockets.sync.server.serve(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self.server.socket.getsockname()[1]}/path?query"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _serve(self, conn):
        done = threading.Event()
        self.accepted.put((conn, done))
        done.wait()

    @contextmanager
    def accept(self, timeout=15):
        """A connection; its end is an orderly close."""
        try:
            conn, done = self.accepted.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError("the exporter did not connect to its peer") from None
        try:
            yield conn
        finally:
            done.set()


class Peers:
    def __init__(self):
        # A short path: a Unix socket's address holds 108 bytes.
        self.folder = tempfile.mkdtemp(prefix="judge-")
        self.tcp = Listener(local_tcp())
        self.mirror = Mirror(local_tcp())
        self.refused = local_tcp()  # bound and never listening: connections are refused
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.udp.settimeout(15)
        self.unix_path = os.path.join(self.folder, "peer.sock")
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        unix.bind(self.unix_path)
        self.unix = Listener(unix)
        self.terminal = Terminal()
        self.web = Web()
        # Where the exporter under test keeps its temporary files.
        self.temporary = os.path.join(self.folder, "temporary")
        self.root = os.path.join(self.folder, "root")
        os.mkdir(self.temporary)
        os.mkdir(self.root)
        self.lacks = {}  # capabilities that are missing, and why
        self.bus = self.vsock = None
        try:
            self.bus = Bus(self.folder)
        except OSError as e:
            self.lacks["dbus"] = f"dbus-daemon: {e}"
        try:
            self.vsock = Listener(local_vsock())
        except OSError as e:
            self.lacks["vsock"] = f"a connection to this machine: {e}"
        self.sockets = Sockets()

    def environment(self):
        """Variables for the exporter that gets the harness."""
        return {
            "TMPDIR": self.temporary,
            "DBUS_SESSION_BUS_ADDRESS": self.bus.address if self.bus else f"unix:path={self.folder}/no-bus",
        }

    def names(self):
        return {
            "root": self.root,
            "vsock": self.vsock.sock.getsockname()[1] if self.vsock else 1,
            "websocket": self.sockets.url,
            "tcp": self.tcp.sock.getsockname()[1],
            "mirror": self.mirror.sock.getsockname()[1],
            "refused": self.refused.getsockname()[1],
            "udp": self.udp.getsockname()[1],
            "unix": self.unix_path,
            "tty": self.terminal.path,
            "absent": os.path.join(self.folder, "absent"),
        }

    def forget(self):
        self.tcp.forget()
        self.unix.forget()
        self.terminal.forget()
        self.web.forget()
        self.udp.setblocking(False)
        try:
            while True:
                self.udp.recvfrom(65536)
        except BlockingIOError:
            pass
        self.udp.settimeout(15)

    def close(self):
        if self.bus:
            self.bus.close()
        shutil.rmtree(self.folder, ignore_errors=True)
