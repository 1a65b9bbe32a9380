"""The programs jmp and j, and the pytest fixture, as a user meets them."""

import os
import select
import socket
import subprocess
import sys
import tty
from contextlib import contextmanager
from pathlib import Path

import pexpect
from client import poll, same
from peers import read_exactly
from pexpect.fdpexpect import fdspawn
from table import case

READINGS = (
    "voltage=0.0 V  current=0.0 A  apparent_power=0.0 VA\n"
    "voltage=5.0 V  current=2.0 A  apparent_power=10.0 VA\n"
)


def holds(what, text, *wanted):
    for w in wanted:
        if w not in text:
            raise AssertionError(f"{what} lacks {w!r}:\n{text}")


def line(process, timeout=60):
    """The next line that a program prints."""
    if not select.select([process.stdout], [], [], timeout)[0]:
        raise AssertionError(f"{process.args[-3:]} printed nothing within {timeout} s")
    got = process.stdout.readline().decode().strip()
    if not got:
        raise AssertionError(f"{process.args[-3:]} ended: {process.stderr.read().decode()}")
    return got


def stop(process):
    """End a program that waits for ever; an interrupt does not end these."""
    process.kill()
    process.communicate()


@case("jmp/shell")
def _(j):
    script = "j power on && j power cycle --wait 0 && j power read && j power off && echo $JUMPSTARTER_HOST"
    got = j.run(
        "jmp", "shell", "--tls-grpc", j.main, "--tls-grpc-insecure", "--", "sh", "-c", script, env=j.environment()
    )
    holds("the output", got, READINGS, j.main, "Power cycling with 0 seconds")


@case("jmp/shell, the command's status")
def _(j):
    j.run(
        "jmp", "shell", "--tls-grpc", j.main, "--tls-grpc-insecure", "--", "sh", "-c", "exit 7",
        env=j.environment(), status=7,
    )  # fmt: skip


@case("jmp/shell, the exporter's log")
def _(j):
    got = j.run(
        "jmp", "shell", "--tls-grpc", j.main, "--tls-grpc-insecure", "--exporter-logs", "--",
        "sh", "-c", "j power on && sleep 0.5", env=j.environment(),
    )  # fmt: skip
    holds("the output", got, "power on")


@case("jmp/shell, passphrase")
def _(j):
    at = ("jmp", "shell", "--tls-grpc", j.where["guarded"], "--tls-grpc-insecure")
    j.run(*at, "--passphrase", j.where["passphrase"], "--", "j", "power", "on", env=j.environment())
    got = j.run(*at, "--passphrase", "wrong", "--", "true", env=j.environment(), status=1)
    holds("the output", got, "invalid or missing passphrase")


@case("jmp/shell, TLS")
def _(j):
    got = j.run(
        "jmp", "shell", "--tls-grpc", j.where["tls"], "--", "j", "power", "read", env=j.environment()
    )
    holds("the output", got, READINGS)


@case("j/host and port")
def _(j):
    same("j power on", j.run("j", "power", "on"), "")
    port = j.peers.names()["tcp"]
    same("j tcp address", j.run("j", "tcp", "address"), f"127.0.0.1:{port}\n")


@case("j/names")
def _(j):
    j.run("j", "größe ⚡", "on")
    j.run("j", "group", "inner", "on")


@case("j/passphrase")
def _(j):
    lease = j.lease() | {"JUMPSTARTER_HOST": j.where["guarded"]}
    j.run("j", "power", "on", env=lease | {"JMP_GRPC_PASSPHRASE": j.where["passphrase"]})
    holds("the output", j.run("j", "power", "on", env=lease, status=1), "invalid or missing passphrase")


@case("j/unix socket")
def _(j):
    env = j.environment(JUMPSTARTER_HOST=j.where["local"], JMP_DRIVERS_ALLOW="UNSAFE")
    holds("j power read", j.run("j", "power", "read", env=env), READINGS)


@case("j/help")
def _(j):
    got = j.run("j", "--help")
    holds("the help", got, "A bench for the judge", "power", "The supply of the device", "main rail", "serial", "group")
    holds("the help of power", j.run("j", "power", "--help"), "Lets the current flow", "Power off")


@case("j/unknown client class")
def _(j):
    """A package that does not hold the class stands before the real one."""
    hollow = Path(j.peers.folder, "hollow", "jumpstarter_driver_pyserial")
    hollow.mkdir(parents=True, exist_ok=True)
    (hollow / "__init__.py").touch()
    env = j.lease(PYTHONPATH=str(hollow.parent))
    got = j.run("j", "--help", env=env)
    holds("the help", got, "power", "tcp", "jumpstarter_driver_pyserial.client.PySerialClient")
    same("serial among the commands", "\n  serial" in got, False)
    j.run("j", "power", "on", env=env)


@case("j/refused call")
def _(j):
    holds("the output", j.run("j", "refused", "address", status=1), "enable_address")


@case("j/forward a TCP port")
def _(j):
    process = j.start("j", "mirror", "forward-tcp", "--address", "127.0.0.1", "0")
    try:
        host, port = line(process).rsplit(":", 1)
        for _ in range(2):
            with socket.create_connection((host, int(port)), timeout=15) as here:
                here.sendall(b"hello")
                same("the local read", read_exactly(here, 5), b"hello")
                here.shutdown(socket.SHUT_WR)
                same("the end", here.recv(1), b"")
    finally:
        stop(process)


@case("j/forward a Unix socket")
def _(j):
    path = os.path.join(j.peers.folder, "forward.sock")
    process = j.start("j", "unix", "forward-unix", path)
    try:
        same("the path", line(process), path)
        with socket.socket(socket.AF_UNIX) as here:
            here.settimeout(15)
            here.connect(path)
            there = j.peers.unix.accept()
            here.sendall(b"hello")
            same("the peer's read", read_exactly(there, 5), b"hello")
            there.sendall(b"world")
            same("the local read", read_exactly(here, 5), b"world")
    finally:
        stop(process)


@contextmanager
def console_of(j, name):
    """`j NAME start-console` on a terminal, and what pexpect makes of that.

    Not pexpect.spawn: it forks, and a process in which gRPC runs is not to.
    """
    master, slave = os.openpty()
    tty.setraw(slave)  # so that only the console echoes
    process = subprocess.Popen(
        [j.programs / "j", name, "start-console"], env=j.lease(), stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    try:
        yield process, fdspawn(master, timeout=60)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def heard(j, console, name):
    """Type a letter, and see whether it came to where it should."""
    console.send("x")
    if name == "serial":
        return console.expect(["x", pexpect.TIMEOUT], timeout=0.2) == 0
    try:
        j.peers.terminal.read(1, timeout=0.2)
    except AssertionError:
        return False
    return True


@case("j/console")
def _(j):
    for name in ("serial", "tty"):
        with console_of(j, name) as (process, console):
            console.expect("exit with CTRL.B x 3 times")
            # What is typed before the console has made its terminal raw, and
            # what a tty says before it is opened, is lost.
            poll(lambda console=console, name=name: heard(j, console, name), "an open console", timeout=60)
            if name == "serial":
                console.send("hello\r")
                console.expect("hello\r")
            else:
                j.peers.terminal.write(b"login: ")
                console.expect("login: ")
                console.send("root\r")
                j.peers.terminal.read_until(b"root\r")
            console.send("\x02\x02\x02")
            console.expect(pexpect.EOF)
            same("the console's exit status", process.wait(60), 0)


@case("j/pipe into a serial line")
def _(j):
    j.run("j", "tty", "pipe", "--no-output", stdin="boot\n")
    same("the terminal's read", j.peers.terminal.read(5), b"boot\n")


@case("j/pipe out of a serial line")
def _(j):
    log = Path(j.peers.folder, "serial.log")
    process = j.start("j", "tty", "pipe", "-o", str(log))
    try:
        # Its standard input is a pipe, so it forwards that as well, once it
        # has a full buffer or the end.
        process.stdin.write(b"hello\n")
        process.stdin.close()
        process.stdin = None
        same("the terminal's read", j.peers.terminal.read(6, timeout=60), b"hello\n")
        j.peers.terminal.write(b"U-Boot 2026.10\r\n")
        poll(lambda: log.exists() and log.read_bytes() == b"U-Boot 2026.10\r\n", "the line in the log")
    finally:
        stop(process)


@case("pytest/fixture")
def _(j):
    test = Path(j.peers.folder, "harness_test.py")
    test.write_text(
        "from jumpstarter_testing import JumpstarterTest\n"
        "\n"
        "class TestHarness(JumpstarterTest):\n"
        "    def test_power(self, client):\n"
        "        client.power.on()\n"
        "        assert [r.voltage for r in client.power.read()] == [0.0, 5.0]\n"
        "\n"
        "    def test_stream(self, client):\n"
        "        with client.echo.stream() as stream:\n"
        "            stream.send(b'hello')\n"
        "            assert stream.receive() == b'hello'\n"
    )
    got = j.run(
        "jmp", "shell", "--tls-grpc", j.main, "--tls-grpc-insecure", "--",
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", str(test),
        env=j.environment(),
    )  # fmt: skip
    holds("the output", got, "2 passed")
