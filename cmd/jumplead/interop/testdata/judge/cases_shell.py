"""Scripts: their output as it comes, their status, their end."""

import os
import threading

from client import poll, refused, same, value
from grpc import StatusCode as Code
from jumpstarter_protocol import jumpstarter_pb2
from table import case


def run(j, method, *args, env=None):
    """All output of a script, both kinds, and its status."""
    out, err, status = "", "", None
    for o, e, s in j.client.shell.streamingcall("call_method", method, env or {}, *args):
        out, err, status = out + o, err + e, s
    return out, err, status


@case("shell/arguments and environment")
def _(j):
    got = run(j, "show", "a b", "", "größe ⚡", env={"WORD": "from the client"})
    want = "|".join(["show", j.peers.root, "from the client", "a b", "", "größe ⚡", ""])
    same("the script's output", got, (want, "", 0))


@case("shell/status and standard error")
def _(j):
    same("output, errors and status", run(j, "both"), ("out\n", "err\n", 7))


@case("shell/methods")
def _(j):
    same("get_methods()", sorted(j.client.shell.call("get_methods")),
         ["both", "bytes", "halves", "late", "live", "much", "show", "stay"])
    same("descriptions", j.client.shell.methods_description, {"late": "Takes longer than it may"})
    refused("an unknown method", Code.INVALID_ARGUMENT, j.wire.streaming, j.uuid("shell"), "call_method", "none", {})
    refused("an argument that is no string", Code.INVALID_ARGUMENT,
            j.wire.streaming, j.uuid("shell"), "call_method", "show", {}, 1)
    for name in ("LD_PRELOAD", "PATH", "no identifier"):
        refused(f"the variable {name}", Code.INVALID_ARGUMENT,
                j.wire.streaming, j.uuid("shell"), "call_method", "show", {name: "x"})


@case("shell/output as it comes")
def _(j):
    fifo = os.path.join(j.peers.folder, "fifo")
    os.mkfifo(fifo)
    output = j.client.shell.streamingcall("call_method", "live", {}, fifo)
    same("the first output", next(output)[0], "one\n")
    # The script waits for this, so what came first came while it ran.
    threading.Thread(target=lambda: open(fifo, "w").write("two\n"), daemon=True).start()
    rest = list(output)
    same("the rest", ("".join(o for o, _, _ in rest), rest[-1][2]), ("two\n", 0))
    os.remove(fifo)


@case("shell/output that is not text")
def _(j):
    same("output, errors and status", run(j, "bytes"), ("caf\ufffd end", "", 0))


@case(
    "shell/a character in two pieces",
    defect="a character that comes in two pieces is taken for no UTF-8",
    shows="\ufffd",
)
def _(j):
    same("output, errors and status", run(j, "halves"), ("€ end", "", 0))


@case(
    "shell/much output",
    defect="output moves at about 10 KB/s while the script runs",
    shows="DEADLINE_EXCEEDED",
)
def _(j):
    got = j.wire.streaming(j.uuid("shell"), "call_method", "much", {}, timeout=5)
    out = "".join(item.list_value[0] for item in got)
    same("the output", (len(out), set(out)), (1000000, {"x"}))
    same("the status", got[-1].list_value[2], 0)


@case("shell/time-out")
def _(j):
    items = list(j.client.shell.streamingcall("call_method", "late", {}))
    same("the output", "".join(o for o, _, _ in items), "begun\n")
    out, err, status = items[-1]
    same("the last item's output and status", (out, status), ("", 199))
    if not err.startswith("\nTimeout expired while running late") or not err.endswith("\n"):
        raise AssertionError(f"the last item's line = {err!r}; want one that says what expired")


def gone(pid):
    """Whether a process has ended; a zombie has."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@case(
    "shell/cancelled",
    defect="a script goes on when its call is cancelled",
    shows="the end of the script and its child did not happen",
)
def _(j):
    request = jumpstarter_pb2.StreamingDriverCallRequest(
        uuid=j.uuid("shell"), method="call_method", args=[value("stay"), value({})]
    )
    call = j.wire.exporter.StreamingDriverCall(request, timeout=60)
    printed = ""
    while printed.count("\n") < 2:
        printed += next(call).result.list_value[0]
    pids = [int(pid) for pid in printed.split()]
    try:
        call.cancel()
        poll(lambda: all(map(gone, pids)), "the end of the script and its child", timeout=8)
    finally:
        for pid in pids:
            if not gone(pid):
                os.kill(pid, 9)
