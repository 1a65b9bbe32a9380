"""The table of cases, and what the runner knows about each."""

CASES = {}


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
