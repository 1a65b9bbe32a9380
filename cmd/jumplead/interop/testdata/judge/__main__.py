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
import string
import sys
from pathlib import Path

from peers import Peers
from table import attempt, ordered, say, tell

HERE = Path(__file__).parent


def table():
    import cases_call  # noqa: F401
    import cases_cli  # noqa: F401
    import cases_network  # noqa: F401
    import cases_reach  # noqa: F401
    import cases_shell  # noqa: F401
    import cases_storage  # noqa: F401
    import cases_stream  # noqa: F401

    return ordered()


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
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        tell(table())
    else:
        main()
