"""The judge of devices: drives exporters with the stock client, case by case.

It first prints its table, one JSON object a line. The other side of every wire
is held by the test that started the judge. That sends a line with the address
of an exporter, and what that lacks. Then the judge prints a line for each case,
and one that it is done. In between it prints what it asks of the devices, and
reads an answer.
"""

import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tty
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "testdata" / "judge"))

import pexpect  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from client import ABSENT, PATIENCE, Judge, one_of, poll, raises, refused, same  # noqa: E402
from grpc import StatusCode as Code  # noqa: E402
from jumpstarter_driver_gpiod.client import DigitalInputClient, DigitalOutputClient, PinState  # noqa: E402
from jumpstarter_driver_network.adapters import TcpPortforwardAdapter  # noqa: E402
from jumpstarter_driver_power.client import PowerClient  # noqa: E402
from pexpect.fdpexpect import fdspawn  # noqa: E402
from table import attempt, case, ordered, say, tell  # noqa: E402

# The lines of the chip, as the config has them.
RELAY, LOW, SUPPLY, BOOT, BUTTON, DRAIN, RAIL = 1, 2, 3, 4, 5, 6, 7


class Devices:
    """The other side of the wires."""

    def __init__(self, folder, lacks):
        self.folder = folder
        self.lacks = lacks
        self.lock = threading.Lock()

    def ask(self, what, *args):
        with self.lock:
            say(ask=what, args=args)
            answer = json.loads(sys.stdin.readline())
        if error := answer.get("error"):
            raise AssertionError(f"{what}{args}: {error}")
        return answer.get("value")

    def level(self, line):
        return self.ask("level", line)

    def pull(self, line, high):
        self.ask("pull", line, high)

    def hear(self, data):
        """Wait until the adapter was sent this."""
        self.ask("hear", base64.b64encode(data).decode())

    def tell(self, data):
        """Wait until the host listens to the adapter, and send it this."""
        self.ask("tell", base64.b64encode(data).decode())


def command(client, *args):
    """A command of a client as j runs it, in this process; what it prints."""
    got = CliRunner().invoke(client.cli(), args)
    if got.exit_code != 0:
        raise AssertionError(f"{' '.join(args)}: exit status {got.exit_code}: {got.exception!r}\n{got.output}")
    return got.output


@contextmanager
def meanwhile(function, *args):
    """Something that waits while the case goes on."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(function, *args)


@case("gpio/clients")
def _(j):
    for name, kind in (("relay", DigitalOutputClient), ("button", DigitalInputClient), ("supply", PowerClient)):
        same(f"the class of {name}", type(getattr(j.client, name)), kind)


@case("gpio/initial values")
def _(j):
    for line, want in ((RELAY, False), (LOW, False), (SUPPLY, False), (BOOT, True)):
        same(f"line {line}", j.peers.level(line), want)
    same("read of the line that is active when low", j.client.low.read(), PinState.ACTIVE)


@case("gpio/on, off and read")
def _(j):
    for _ in range(3):
        same("on", j.client.relay.call("on"), None)
        same("the line", j.peers.level(RELAY), True)
        same("read", j.client.relay.read(), PinState.ACTIVE)
        same("read_pin", j.client.relay.call("read_pin"), 1)
        same("the line once it was read", j.peers.level(RELAY), True)
        same("off", j.client.relay.call("off"), None)
        same("the line", j.peers.level(RELAY), False)
        same("read", j.client.relay.read(), PinState.INACTIVE)
        same("read_pin", j.client.relay.call("read_pin"), 0)


@case("gpio/active low")
def _(j):
    j.client.low.off()
    same("the line", j.peers.level(LOW), True)
    same("read", j.client.low.read(), PinState.INACTIVE)
    j.client.low.on()
    same("the line", j.peers.level(LOW), False)
    same("read", j.client.low.read(), PinState.ACTIVE)


@case("gpio/commands of an output")
def _(j):
    command(j.client.relay, "on")
    same("the line", j.peers.level(RELAY), True)
    same("read", command(j.client.relay, "read"), "active\n")
    command(j.client.relay, "off")
    same("the line", j.peers.level(RELAY), False)
    same("read", command(j.client.relay, "read"), "inactive\n")
    command(j.client.relay, "cycle", "--wait", "0")
    same("the line after cycle", j.peers.level(RELAY), True)


@case("gpio/what an output has not")
def _(j):
    refused("rescue", Code.NOT_FOUND, j.wire.call, j.uuid("relay"), "rescue")
    refused("wait_for_active", Code.NOT_FOUND, j.wire.call, j.uuid("relay"), "wait_for_active")
    raises("rescue of the client", Exception, j.client.relay.rescue)


@case("gpio/an input is read")
def _(j):
    for high in (True, False, True):
        j.peers.pull(BUTTON, high)
        same("read", j.client.button.read(), PinState.ACTIVE if high else PinState.INACTIVE)
        same("the command", command(j.client.button, "read"), "active\n" if high else "inactive\n")


def settle(j, high):
    """Make the button so, and forget its edges."""
    j.peers.pull(BUTTON, high)
    for edge in ("rising", "falling"):
        refused("a wait for what was before", Code.DEADLINE_EXCEEDED,
                lambda edge=edge: [j.wire.call(j.uuid("button"), "wait_for_edge", edge, 0.1) for _ in range(64)])


@case("gpio/wait for a level")
def _(j):
    settle(j, False)
    j.client.button.wait_for_inactive(0.1)
    refused("wait_for_active", Code.DEADLINE_EXCEEDED, j.wire.call, j.uuid("button"), "wait_for_active", 0.1)
    raises("wait_for_active of the client", Exception, j.client.button.wait_for_active, 0.1)
    with meanwhile(j.client.button.wait_for_active, 60) as wait:
        # Others are served meanwhile.
        j.client.relay.on()
        same("the exporter's status", j.wire.status().status != 0, True)
        same("the wait is over", wait.done(), False)
        j.peers.pull(BUTTON, True)
        same("wait_for_active", wait.result(PATIENCE), None)
    j.client.button.wait_for_active(0.1)
    with meanwhile(j.client.button.wait_for_inactive) as wait:  # for ever
        j.peers.pull(BUTTON, False)
        same("wait_for_inactive", wait.result(PATIENCE), None)


@case("gpio/wait for an edge")
def _(j):
    settle(j, False)
    with meanwhile(j.client.button.wait_for_edge, "rising", 60) as wait:
        j.peers.pull(BUTTON, True)
        same("wait_for_edge", wait.result(PATIENCE), None)
    refused("another rising edge", Code.DEADLINE_EXCEEDED, j.wire.call, j.uuid("button"), "wait_for_edge", "rising", 0.1)
    # What happens before the wait counts.
    j.peers.pull(BUTTON, False)
    j.client.button.wait_for_edge("falling", PATIENCE)
    j.peers.pull(BUTTON, True)
    command(j.client.button, "wait-for-edge", "rising", "--timeout", str(PATIENCE))
    refused("an edge that is none", Code.INVALID_ARGUMENT, j.wire.call, j.uuid("button"), "wait_for_edge", "sideways", 1)


@case("gpio/a supply")
def _(j):
    j.client.supply.on()
    same("the line", j.peers.level(SUPPLY), True)
    same("read_pin", j.client.supply.call("read_pin"), 1)
    j.client.supply.off()
    same("the line", j.peers.level(SUPPLY), False)
    j.client.supply.cycle(0)
    same("the line after cycle", j.peers.level(SUPPLY), True)
    refused("read", Code.UNIMPLEMENTED, j.wire.streaming, j.uuid("supply"), "read")
    command(j.client.supply, "off")
    same("the line", j.peers.level(SUPPLY), False)
    command(j.client.supply, "cycle", "--wait", "0")
    same("the line after cycle", j.peers.level(SUPPLY), True)


@case("gpio/an open drain")
def _(j):
    """A line that is let go is what others make it, and is read so."""
    j.client.drain.off()
    same("the line", j.peers.level(DRAIN), False)
    same("read", j.client.drain.read(), PinState.INACTIVE)
    j.client.drain.on()
    for high in (False, True):
        j.peers.pull(DRAIN, high)
        same("read when it is let go", j.client.drain.read(), PinState.ACTIVE if high else PinState.INACTIVE)
        same("the line", j.peers.level(DRAIN), high)


@case("gpio/a chip that goes and comes back", last=True,
      defect="a line is requested when the exporter starts, and never again", shows="want UNAVAILABLE|UNKNOWN|INTERNAL")
def _(j):
    j.client.relay.on()
    j.peers.ask("remove")
    try:
        # Until the last has noticed, the kernel would give a new chip another number.
        for name in ("relay", "low", "supply", "boot", "button", "drain"):
            refused(f"read_pin of {name} without the chip", Code.UNAVAILABLE, j.wire.call, j.uuid(name), "read_pin")
        refused("on of the rail without the chip", Code.UNAVAILABLE, j.wire.call, j.uuid("rail"), "on")
    finally:
        j.peers.ask("remake")
    j.client.relay.on()
    same("the line", j.peers.level(RELAY), True)
    j.peers.pull(BUTTON, True)
    same("the button", j.client.button.read(), PinState.ACTIVE)


BINARY = b"\x00\x03\x04\r\n\x11\x13\xff"  # what a terminal that was not made raw would eat


@case("console/bytes")
def _(j):
    with j.pipe(j.client.console) as s:
        s.send(BINARY)
        j.peers.hear(BINARY)
        poll(lambda: j.peers.ask("baud") == 250000, "the line's speed")
        j.peers.tell(BINARY)
        same("the client's read", s.read(len(BINARY)), BINARY)
    with j.pipe(j.client.console) as s:
        s.send(b"once more")
        j.peers.hear(b"once more")


@case("console/pexpect")
def _(j):
    with j.client.console.pexpect() as console:
        console.sendline("uname")
        j.peers.hear(b"uname\n")
        j.peers.tell(b"Linux\r\n$ ")
        console.expect(r"Linux\r\n\$ ", timeout=PATIENCE)
        console.sendline("exit")
        j.peers.hear(b"exit\n")


@case("console/tunnel")
def _(j):
    with TcpPortforwardAdapter(client=j.client.console) as address:
        with socket.create_connection(address, timeout=PATIENCE) as here:
            here.sendall(b"through the tunnel")
            j.peers.hear(b"through the tunnel")
            j.peers.tell(b"and back")
            got = b""
            while len(got) < 8:
                got += here.recv(8)
            same("the local read", got, b"and back")


@case("console/modem lines")
def _(j):
    with j.pipe(j.client.console):
        poll(lambda: j.peers.ask("lines") == {"dtr": True, "rts": True}, "opening")
        j.client.console.call("set_dtr", False)
        same("the lines", j.peers.ask("lines"), {"dtr": False, "rts": True})
        j.client.console.call("set_dtr", True)
        j.client.console.call("set_rts", False)
        same("the lines", j.peers.ask("lines"), {"dtr": True, "rts": False})


@case("console/one modem line after the other", defect="a call opens the port anew, which raises DTR and RTS",
      shows="the lines = ")
def _(j):
    with j.pipe(j.client.console):
        poll(lambda: j.peers.ask("lines") == {"dtr": True, "rts": True}, "opening")
        j.client.console.call("set_dtr", False)
        j.client.console.call("set_rts", False)
        same("the lines", j.peers.ask("lines"), {"dtr": False, "rts": False})


@contextmanager
def terminal(j, *argv):
    """A program on a terminal, and what pexpect makes of that. It is not
    pexpect.spawn, which forks: a process in which gRPC runs is not to."""
    master, slave = os.openpty()
    tty.setraw(slave)
    process = subprocess.Popen([j.programs / argv[0], *argv[1:]], env=j.lease(), stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    try:
        yield process, fdspawn(master, timeout=60)
    finally:
        process.kill()
        process.wait()
        os.close(master)


@case("console/j start-console")
def _(j):
    with terminal(j, "j", "console", "start-console") as (process, console):
        console.expect("exit with CTRL.B x 3 times", timeout=110)  # it takes Python seconds to start

        asked = -1.0

        def open():
            nonlocal asked
            if time.monotonic() > asked + 1:  # each of them takes its time on the line
                asked = time.monotonic()
                console.send("anybody?")
            return j.peers.ask("heard", base64.b64encode(b"anybody?").decode())

        # What is typed or said before the console has opened the line is lost.
        poll(open, "an open console", timeout=110)
        j.peers.tell(b"login: ")
        console.expect("login: ")
        console.send("root\r")
        j.peers.hear(b"root\r")
        console.send("\x02\x02\x02")
        console.expect(pexpect.EOF)
        same("the exit status", process.wait(60), 0)


@case("console/unplugged and plugged in again in a session", last=True)
def _(j):
    for _ in range(2):
        with j.wire.stream(j.uuid("console")) as s:
            s.initial()
            s.send(b"before")
            j.peers.hear(b"before")
            j.peers.ask("unplug")
            s.read_end()
        with j.wire.stream(j.uuid("console")) as s:
            one_of("the status of a stream without the adapter", s.code(), ABSENT)
        j.peers.ask("replug")
        with j.pipe(j.client.console) as s:
            s.send(b"after")
            j.peers.hear(b"after")
            j.peers.tell(b"again")
            same("the client's read", s.read(5), b"again")


def near(what, got, want, within):
    if abs(got - want) > within:
        raise AssertionError(f"{what} = {got}; want {want}, or {within} off at most")


def measured(what, client, volts, amps):
    readings = list(islice(client.read(), 1))
    same(f"the number of readings of {what}", len(readings), 1)
    near(f"the voltage of {what}", readings[0].voltage, volts, 0.005)
    near(f"the current of {what}", readings[0].current, amps, 0.003)


METERS = ("ina219", "ina226", "ina260")


@case("meters/volts and amperes", needs="meters")
def _(j):
    for name in METERS:
        client = getattr(j.client, name)
        same(f"the class of {name}", type(client), PowerClient)
        for volts, amps in ((5, 0.25), (12.5, 0.75), (3.3, -0.125)):
            j.peers.ask("feed", name, volts, amps)
            measured(name, client, volts, amps)
        j.peers.ask("feed", name, 5, 0.25)
        text = command(client, "read", "--count", "2", "--interval", "0")
        same(f"the readings of {name}", text.count("voltage="), 2)


@case("meters/a supply that is switched and measured", needs="meters")
def _(j):
    j.peers.ask("feed", "rail", 12, 0.5)
    j.client.rail.on()
    same("the line", j.peers.level(RAIL), True)
    measured("the rail", j.client.rail, 12, 0.5)
    j.client.rail.off()
    same("the line", j.peers.level(RAIL), False)


@case("meters/a chip that is not there", needs="meters")
def _(j):
    for name in METERS:
        j.peers.ask("feed", name, 5, 0.25)
        j.peers.ask("lift", name)
        refused(f"read of {name}", Code.UNAVAILABLE, j.wire.streaming, j.uuid(name), "read")
        j.peers.ask("seat", name)
        measured(name, getattr(j.client, name), 5, 0.25)


def main():
    # The client's progress bars would be printed between the lines.
    os.environ["TERM"] = "dumb"
    tell(ordered())
    say(done=True)
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            where = json.loads(line)
            with Judge(where, Devices(folder, where["lacks"])) as judge:
                for c in ordered():
                    outcome, text, seconds = attempt(c, judge)
                    say(name=c.name, outcome=outcome, text=text, seconds=seconds)
                say(done=True)
    # Threads of a case that hung must not keep the process.
    os._exit(0)


main()
