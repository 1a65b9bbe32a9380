"""The judge: drives one exporter with the stock client, case by case.

    python judge --list     prints the table, one JSON object a line
    python judge            runs it

When it runs, the judge first prints the config of the harness, in which it
has filled in the addresses of its own sockets, and variables for the
environment of the exporter that gets it. Whoever started it starts the
exporters and answers with their addresses in one line of JSON. Then the judge
prints a line of JSON for each case. Standard input stays open until the judge
may end.
"""

import json
import os
import queue
import string
import sys
import threading
import time
import traceback
from pathlib import Path

from peers import Peers

HERE = Path(__file__).parent

# Seconds after which a case has failed. Cases have shorter limits for what they
# wait for; this one is for a client that hangs.
LIMIT = 120


def say(**line):
    print(json.dumps(line), flush=True)


def table():
    import cases_call  # noqa: F401
    import cases_cli  # noqa: F401
    import cases_network  # noqa: F401
    import cases_reach  # noqa: F401
    import cases_shell  # noqa: F401
    import cases_storage  # noqa: F401
    import cases_stream  # noqa: F401
    from table import ordered

    return ordered()


def attempt(case, judge):
    """Run one case, for no longer than LIMIT."""
    if lack := judge.peers.lacks.get(case.needs):
        return "absent", lack, 0
    from client import heart

    done = queue.Queue()

    def run():
        try:
            case.run(judge)
        except BaseException as e:
            e = heart(e)
            if isinstance(e, AssertionError) and str(e):
                done.put(("fail", str(e)))
            else:
                where = "".join(traceback.format_exception(e, limit=-4))
                done.put(("fail", f"{type(e).__name__}: {e}\n{where}"))
        else:
            done.put(("pass", ""))

    start = time.monotonic()
    thread = threading.Thread(target=run, daemon=True, name=case.name)
    thread.start()
    try:
        outcome, text = done.get(timeout=LIMIT)
    except queue.Empty:
        frame = sys._current_frames().get(thread.ident)
        where = "".join(traceback.format_stack(frame)[-4:]) if frame else ""
        outcome, text = "fail", f"not done within {LIMIT} s\n{where}"
    return outcome, text, round(time.monotonic() - start, 3)


def main():
    # The client's progress bars would be printed between the lines.
    os.environ["TERM"] = "dumb"
    peers = Peers()
    try:
        text = (HERE.parent / "harness.yaml").read_text(encoding="utf-8")
        say(config=string.Template(text).substitute(peers.names()), env=peers.environment())
        where = json.loads(sys.stdin.readline())
        # gRPC reads this once, when it is loaded.
        os.environ["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] = where["ca"]

        from client import Judge

        cases = table()
        with Judge(where, peers) as judge:
            for case in cases:
                peers.forget()
                outcome, text, seconds = attempt(case, judge)
                say(name=case.name, outcome=outcome, text=text, seconds=seconds)
    finally:
        peers.close()
    # Threads of a case that hung must not keep the process.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        for c in table():
            say(name=c.name, defect=c.defect or "", shows=c.shows or "", needs=c.needs or "")
    else:
        main()
