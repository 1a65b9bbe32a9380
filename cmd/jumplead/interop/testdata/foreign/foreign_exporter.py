"""A pytest plugin that runs Jumpstarter's own tests against another exporter.

The tests in the wheels build Python driver objects and hand them to serve(),
which runs an exporter in the test's process and yields a client. Here serve()
writes the objects into an ExporterConfig, starts the exporter that is named in
the environment, and yields a client of that. What a test then does with the
client is upstream's own idea of what an exporter must do.

    FOREIGN_EXPORTER  the command to start, with {config} and {address} in it
    FOREIGN_FORKED    not empty if that is the stock exporter, which is then
                      forked and not started
    FOREIGN_OUTCOMES  the file that gets one JSON object a test
    FOREIGN_KEEP      how many exporters to keep for tests with the same
                      config; 0, the default, starts one for each serve()
    FOREIGN_ONLY      a file with the names of the tests to run; all if not given

Not every test can be asked of another exporter. A test that never serves
anything, or whose driver exists only in the test, is skipped with a reason.
One that passed and never reached the exporter is reported as such: it would
have said nothing.

The wheels also lack what the workspace they were built from gives its tests:
names in the namespace of doctests, the pytester plugin, the anyio backend, a
wide console without progress bars. The plugin supplies them.
"""

import dataclasses
import inspect
import json
import os
import re
import shlex
import socket
import subprocess
import tempfile
import time
from collections import OrderedDict
from contextlib import ExitStack, contextmanager

import forked
import jumpstarter_testing.pytest
import pytest
import yaml
from anyio.from_thread import start_blocking_portal
from jumpstarter_driver_composite.driver import Proxy

import jumpstarter.common.utils
import jumpstarter.exporter
from jumpstarter.client import client_from_path
from jumpstarter.common import ExporterStatus
from jumpstarter.config.env import JMP_GRPC_INSECURE
from jumpstarter.config.exporter import ExporterConfigV1Alpha1DriverInstance

pytest_plugins = ["pytester"]

COMMAND = os.environ["FOREIGN_EXPORTER"]
FORKED = bool(os.environ.get("FOREIGN_FORKED"))
OUTCOMES = os.environ["FOREIGN_OUTCOMES"]
KEEP = int(os.environ.get("FOREIGN_KEEP", "0"))
ONLY = os.environ.get("FOREIGN_ONLY")

NEVER_SERVES = "asks nothing of an exporter"
OWN_DRIVER = "brings a Python driver of its own"

# Under export, the object that a test serves is the child of this name.
DUT = "dut"

# What serves a driver in upstream's tests and doctests.
SERVERS = {"serve", "Session"}
DOCTEST_SERVERS = {"serve", "run"}


TEMPORARY = (tempfile.TemporaryDirectory, tempfile._TemporaryFileWrapper)


class NotConvertible(Exception):
    pass


def instance(driver):
    """A driver object as an ExporterConfig writes it."""
    if isinstance(driver, Proxy):
        return {"ref": f"{DUT}.{driver.ref}"}
    kind = type(driver)
    path = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__.endswith("_test") or "<locals>" in path:
        raise NotConvertible(f"{OWN_DRIVER}, {kind.__qualname__}")
    node = {"type": path}
    if config := configuration(driver):
        node["config"] = config
    if driver.children:
        node["children"] = {name: instance(child) for name, child in driver.children.items()}
    return node


def configuration(driver):
    """What the object was given, as far as it is not the default."""
    config = {}
    for f in dataclasses.fields(driver):
        value = getattr(driver, f.name, None)
        # What no file can hold; the exporter's driver makes its own.
        if isinstance(value, TEMPORARY):
            continue
        # Written elsewhere in the file, or made anew for each object.
        if not f.init or f.name in ("children", "description", "methods_description", "uuid"):
            continue
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if value != default:
            config[f.name] = str(value) if isinstance(value, os.PathLike) else value
    return config


class Exporter:
    def __init__(self, config):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{s.getsockname()[1]}"
        self.said = tempfile.NamedTemporaryFile()
        argv = [a.format(config=config, address=self.address) for a in shlex.split(COMMAND)]
        if FORKED:
            self.process = forked.Process(argv, self.said.name)
        else:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=self.said, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", int(self.address.rsplit(":", 1)[1])), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.process.kill()
                    raise AssertionError(f"the exporter does not listen:\n{self.text()}") from None
                time.sleep(0.01)

    def text(self):
        self.said.seek(0)
        return self.said.read().decode(errors="replace")[-4000:]

    def ask_to_stop(self):
        self.process.terminate()

    def wait(self):
        """Wait for the end, which must be orderly."""
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the exporter does not stop:\n{self.text()}") from None
        if status != 0:
            raise AssertionError(f"the exporter's exit status is {status}:\n{self.text()}")


class Pool:
    """The exporters that run, by their config."""

    def __init__(self):
        self.running = OrderedDict()
        self.stopping = []
        self.folder = tempfile.TemporaryDirectory()
        self.count = 0

    @contextmanager
    def exporter(self, driver):
        config = yaml.safe_dump(
            {
                "apiVersion": "jumpstarter.dev/v1alpha1",
                "kind": "ExporterConfig",
                "metadata": {"namespace": "default", "name": "foreign"},
                "export": {DUT: instance(driver)},
            },
            allow_unicode=True,
            sort_keys=False,
        )
        one = self.running.pop(config, None)
        if one is None:
            self.count += 1
            path = os.path.join(self.folder.name, f"{self.count}.yaml")
            with open(path, "w", encoding="utf-8") as f:
                f.write(config)
            one = Exporter(path)
        self.running[config] = one
        try:
            yield one.address
        finally:
            while len(self.running) > KEEP:
                _, old = self.running.popitem(last=False)
                old.ask_to_stop()
                if KEEP:
                    self.stopping.append(old)  # waited for at the end: it takes a second
                else:
                    old.wait()

    def close(self):
        # Once is enough: a second signal may meet an interpreter that is
        # already without its handlers.
        for one in self.running.values():
            one.ask_to_stop()
        left = [*self.stopping, *self.running.values()]
        try:
            for one in left:
                one.wait()
        finally:
            for one in left:
                if one.process.poll() is None:
                    one.process.kill()
            self.folder.cleanup()


POOL = Pool()
REACHED = set()  # tests that talked to an exporter
CURRENT = None


@contextmanager
def exporter(driver):
    try:
        with POOL.exporter(driver) as address:
            REACHED.add(CURRENT)
            yield address
    except NotConvertible as e:
        pytest.skip(str(e))


@contextmanager
def connect(address):
    """The client of the root; its lease is ready."""
    with start_blocking_portal() as portal, ExitStack() as stack:
        tree = client_from_path(address, portal, stack, allow=[], unsafe=True, insecure=True)
        with portal.wrap_async_context_manager(tree) as root:
            deadline = time.monotonic() + 10
            while portal.call(root.get_status_async) != ExporterStatus.LEASE_READY:
                if time.monotonic() > deadline:
                    raise AssertionError("the exporter's lease is not ready")
                time.sleep(0.01)
            yield root


@contextmanager
def serve(driver):
    with exporter(driver) as address, connect(address) as root:
        client = root.children[DUT]
        try:
            yield client
        finally:
            client.close()


@contextmanager
def run(config):
    """serve(), for a doctest that has a piece of YAML."""
    with serve(ExporterConfigV1Alpha1DriverInstance.from_str(config).instantiate()) as client:
        yield client


class Session:
    """The part of an exporter's session that tests use."""

    def __init__(self, *, root_device):
        self.root_device = root_device

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update_status(self, status, message=""):
        """The foreign exporter has its status already."""

    @contextmanager
    def serve_unix(self):
        with exporter(self.root_device) as address, pytest.MonkeyPatch.context() as patch:
            patch.setenv(JMP_GRPC_INSECURE, "1")
            yield address


@contextmanager
def env(of_the_root=jumpstarter_testing.pytest.env):
    """What JumpstarterTest takes for its client."""
    with of_the_root() as root:
        yield root.children[DUT]


# The test modules import these names, so they are replaced before.
jumpstarter.common.utils.serve = serve
jumpstarter.exporter.Session = Session
jumpstarter_testing.pytest.env = env


@pytest.fixture(autouse=True)
def doctest_names(doctest_namespace):
    doctest_namespace.update(serve=serve, run=run)


@pytest.fixture(autouse=True)
def console(monkeypatch):
    monkeypatch.setenv("COLUMNS", "1024")
    monkeypatch.setenv("LINES", "1024")
    # Or a progress bar is part of what a doctest prints.
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture
def anyio_backend():
    return "asyncio"


def names(code):
    """The names that a function uses, and functions inside it."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            found |= names(constant)
    return found


def serves(item):
    """Whether a test, its fixtures, or a doctest serves a driver."""
    if isinstance(item, pytest.DoctestItem):
        if any(DOCTEST_SERVERS & names(compile(e.source, "doctest", "exec")) for e in item.dtest.examples):
            return True
        code = []
    else:
        code = [inspect.unwrap(item.function).__code__]
    for definitions in item._fixtureinfo.name2fixturedefs.values():
        code += [d.func.__code__ for d in definitions if d.func.__module__.startswith("jumpstarter")]
    return any(SERVERS & names(c) for c in code)


TESTS = {}  # node ids, which depend on where pytest runs, to names that do not


def pytest_collection_modifyitems(items):
    for item in items:
        _, _, file = str(item.path).rpartition("/site-packages/")
        _, _, test = item.nodeid.partition("::")
        TESTS[item.nodeid] = f"{file}::{test}"
    if ONLY:
        with open(ONLY, encoding="utf-8") as f:
            wanted = set(f.read().splitlines())
        items[:] = [item for item in items if TESTS[item.nodeid] in wanted]
    for item in items:
        if not serves(item):
            item.add_marker(pytest.mark.skip(reason=NEVER_SERVES))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    global CURRENT
    # A test that runs pytest in its own process brings items of its own.
    outer, CURRENT = CURRENT, CURRENT or item.nodeid
    try:
        return (yield)
    finally:
        CURRENT = outer


RESULTS = {}


def pytest_collectreport(report):
    if report.failed:  # a file that wants a package or data that wheels lack
        text = str(report.longrepr)
        file = re.search(r"/site-packages/(jumpstarter_\S+?\.py)", text)
        RESULTS[file.group(1) if file else report.nodeid] = ("absent", text.strip().splitlines()[-1].removeprefix("E").strip())


def pytest_runtest_logreport(report):
    if report.failed:
        RESULTS[report.nodeid] = ("fail", report.longreprtext)
    elif report.skipped:
        reason = report.longrepr[2].removeprefix("Skipped: ")
        ours = reason.startswith((NEVER_SERVES, OWN_DRIVER))
        RESULTS[report.nodeid] = ("skip" if ours else "absent", reason)
    elif report.when == "call" and report.nodeid not in RESULTS:
        reached = report.nodeid in REACHED
        RESULTS[report.nodeid] = ("pass", "") if reached else ("fail", "passed, and never reached the exporter")


def pytest_unconfigure():
    try:
        POOL.close()
    except AssertionError as e:
        RESULTS["the end of the exporters"] = ("fail", str(e))
    with open(OUTCOMES, "w", encoding="utf-8") as f:
        for test, (outcome, why) in RESULTS.items():
            f.write(json.dumps({"test": TESTS.get(test, test), "outcome": outcome, "why": why}) + "\n")
