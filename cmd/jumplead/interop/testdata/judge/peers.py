"""What stands behind the exporter: sockets and a terminal of the judge."""

import os
import queue
import select
import shutil
import socket
import struct
import tempfile
import threading
import tty


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

    def names(self):
        return {
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
        self.udp.setblocking(False)
        try:
            while True:
                self.udp.recvfrom(65536)
        except BlockingIOError:
            pass
        self.udp.settimeout(15)

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)
