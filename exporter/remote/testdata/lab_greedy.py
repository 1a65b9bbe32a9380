"""A driver that takes more than it should."""

import os
import subprocess

from jumpstarter_driver_power.driver import MockPower

from jumpstarter.driver import export


class Greedy(MockPower):
    @export
    def state(self):
        text = open("/proc/self/status").read()
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line) | {"pid": os.getpid()}

    @export
    def hoard(self, megabytes):
        self.held = bytearray(int(megabytes) << 20)
        return len(self.held)

    @export
    def spin(self):
        while True:
            pass

    @export
    def multiply(self, n):
        processes = []
        try:
            for _ in range(int(n)):
                processes.append(subprocess.Popen(["sleep", "1000"]))
        finally:
            for p in processes:
                p.kill()
                p.wait()
        return len(processes)

    @export
    def files(self, n):
        held = [open("/dev/null") for _ in range(int(n))]
        return len(held)

    @export
    def write(self, path, megabytes):
        with open(path, "wb") as f:
            f.write(bytes(int(megabytes) << 20))
        return os.stat(path).st_size

    @export
    def read(self, path):
        with open(path) as f:
            return f.read()

    @export
    def scratch(self):
        import tempfile

        with tempfile.NamedTemporaryFile("w+") as f:
            f.write("text")
            f.flush()
            return os.path.dirname(f.name)
