"""Runs `jmp` once for each line of JSON on standard input, a list of arguments.

Prints a line of JSON for each: the exit status and what was said. Loading jmp
takes a second, so each runs in a fork of a process that has loaded it; what a
run does and how it ends is not changed by that. A run that serves is killed,
and so is one that does nothing for long; their status is null.
"""

import json
import os
import signal
import sys
import tempfile
import time

from jumpstarter_cli.jmp import jmp

LIMIT = 20
SERVING = b"Session server started"


def run(argv, said):
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["jmp", *argv]
    status = 1
    try:
        jmp()
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(pid, said):
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline and SERVING not in text(said):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    # A run passes it on to the process that serves.
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)
    return None


def text(said):
    return os.pread(said.fileno(), 1 << 20, 0)


for line in sys.stdin:
    with tempfile.TemporaryFile() as said:
        pid = os.fork()
        if pid == 0:
            run(json.loads(line), said)
        status = wait(pid, said)
        print(json.dumps({"status": status, "said": text(said).decode(errors="replace")}), flush=True)
