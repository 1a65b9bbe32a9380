"""Starts the stock exporter without loading it each time.

Loading `jmp` takes a second and much of a processor, longer than most tests.
So it is loaded once, in a process of its own, and each exporter is a fork of
that one. `jmp run` forks before it serves in any case, so it is the same
exporter as one that was started by its name.
"""

import multiprocessing
import os
import subprocess
import sys

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["forked", "jumpstarter_cli.jmp", "jumpstarter.config.exporter", "jumpstarter.exporter"]
    + [f"jumpstarter_driver_{d}.driver" for d in ("composite", "network", "opendal", "power", "pyserial", "shell")]
)


def run(argv, said):
    with open(said, "wb") as f:
        os.dup2(f.fileno(), 1)
        os.dup2(f.fileno(), 2)
    sys.argv = argv
    status = 1
    try:
        from jumpstarter_cli.jmp import jmp

        jmp()
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class Process:
    """What the plugin wants of a subprocess.Popen."""

    def __init__(self, argv, said):
        self.process = SERVER.Process(target=run, args=(argv, said))
        self.process.start()
        self.terminate = self.process.terminate
        self.kill = self.process.kill

    def poll(self):
        return self.process.exitcode

    def wait(self, timeout):
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("jmp", timeout)
        return self.process.exitcode
