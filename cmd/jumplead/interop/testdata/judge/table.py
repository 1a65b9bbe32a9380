"""The table of cases, what the runner knows about each, and how one is run."""

import json
import os
import queue
import sys
import threading
import time
import traceback

CASES = {}

# Seconds after which a case has failed. Cases have shorter limits for what they
# wait for; this one is for a client that hangs.
LIMIT = 120


class Case:
    def __init__(self, name, run, defect, shows, needs, last):
        self.name = name
        self.run = run
        self.defect = defect
        self.shows = shows
        self.needs = needs
        self.last = last


def case(name, *, defect=None, shows=None, needs=None, last=False):
    """Enter a function into the table.

    defect  what the stock exporter does wrong here: it must fail the case.
    shows   a regular expression that its failure must match.
    needs   a capability of the machine, as package hwtest calls it.
    last    the case leaves an exporter in a state no other case should meet.
    """
    if (defect is None) != (shows is None):
        raise ValueError(f"{name}: a defect is named together with how it shows")

    def enter(run):
        if name in CASES:
            raise ValueError(f"two cases are called {name}")
        CASES[name] = Case(name, run, defect, shows, needs, last)
        return run

    return enter


def ordered():
    return sorted(CASES.values(), key=lambda c: c.last)


# The judge's lines have standard output to themselves. What the client prints goes
# where its log goes.
LINES = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def say(**line):
    print(json.dumps(line), file=LINES, flush=True)


def tell(cases):
    """Print the table."""
    for c in cases:
        say(name=c.name, defect=c.defect or "", shows=c.shows or "", needs=c.needs or "")


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
