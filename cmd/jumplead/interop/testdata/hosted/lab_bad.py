"""Drivers that go wrong, each in its own way."""

import ctypes
import os
import sys
import time
from dataclasses import dataclass

from jumpstarter_driver_power.driver import MockPower

from jumpstarter.driver import Driver, export


class Bad(Driver):
    @classmethod
    def client(cls) -> str:
        return "jumpstarter_driver_power.client.PowerClient"

    @export
    def on(self):
        return "on"


class Raises(Bad):
    def __post_init__(self):
        super().__post_init__()
        raise FileNotFoundError("no gadget on any port")


class Exits(Bad):
    def __post_init__(self):
        super().__post_init__()
        sys.exit("that was all")


class Dies(Bad):
    def __post_init__(self):
        super().__post_init__()
        print("no way", file=sys.stderr, flush=True)
        os._exit(5)


class Hangs(Bad):
    def __post_init__(self):
        super().__post_init__()
        time.sleep(3600)


class ReportRaises(Bad):
    def report(self, *, parent=None, name=None):
        raise KeyError("nothing is known")


class ReportDies(Bad):
    def report(self, *, parent=None, name=None):
        os._exit(6)


class ResetRaises(Bad):
    def reset(self):
        raise TimeoutError("the gadget does not reset")


class Segfaults(Bad):
    @export
    def on(self):
        ctypes.string_at(0)


class CallExits(Bad):
    @export
    def on(self):
        os._exit(8)


class CallRaises(Bad):
    """With what is no Exception."""

    @export
    def on(self):
        raise SystemExit("that was all")


class Loud(Bad):
    """Prints what is no text, and much of it, and reads what is not its own."""

    def __post_init__(self):
        super().__post_init__()
        for fd in (1, 2):
            os.write(fd, b"\x00\xff\xfe" + b"x" * 100_000 + b"\r\r\n\x1b[31m{\"id\": 1}\n")
        self.read = sys.stdin.read()

    @export
    def on(self):
        os.write(1, b"no end of a line")
        return self.read + os.read(0, 10).decode()


class Closes(Bad):
    """Closes all files but the first three, as programs do that become daemons."""

    def __post_init__(self):
        super().__post_init__()
        os.closerange(3, 4)


@dataclass(kw_only=True)
class Changes(Bad):
    """Has another child in each process."""

    def __post_init__(self):
        super().__post_init__()
        self.children[f"part{os.getpid()}"] = MockPower()

    @export
    def pid(self):
        return os.getpid()
