"""Runs stock Jumpstarter drivers for jumplead.

Usage: hosted.py SOCKET

One process has one tree of drivers, which is served on a Unix socket by the
session of the installed jumpstarter package. What is in the tree is told by lines
of JSON on standard input, each of which is answered by a line on descriptor 3;
lines there without an id are log records. The process ends with its standard
input. What drivers print is theirs: it does not meet what is said here.
"""

import asyncio
import base64
import collections
import importlib
import inspect
import json
import logging
import os
import sys
import threading
import time

sys.path[:] = [p for p in sys.path if p != os.path.dirname(os.path.abspath(__file__))]
os.set_inheritable(3, False)
# What is told here is not for drivers to read, nor for programs that they start.
told = os.fdopen(os.dup(0), "rb")
nothing = os.open(os.devnull, os.O_RDONLY)
os.dup2(nothing, 0)
os.close(nothing)
lock = threading.Lock()


def say(**line):
    text = json.dumps(line, default=str).encode() + b"\n"
    with lock:
        write(text)


def write(text):
    while text:
        text = text[os.write(3, text) :]


def give_up(kind, **more):
    say(fatal=dict(kind=kind, **more))
    os._exit(3)


def describe(e):
    """An exception for people, in one line."""
    text = " ".join(str(e).split())
    return f"{type(e).__name__}: {text}" if text else type(e).__name__


try:
    import grpc
    import yaml
    from jumpstarter.common import ExporterStatus
    from jumpstarter.config.exporter import ExporterConfigV1Alpha1DriverInstance as Instance
    from jumpstarter.driver import Driver
    from jumpstarter.exporter.session import Session
    from jumpstarter_protocol import jumpstarter_pb2, jumpstarter_pb2_grpc, router_pb2_grpc
except ModuleNotFoundError as e:
    give_up("missing", module=e.name, text=describe(e))
except BaseException as e:  # whatever it is, somebody wants to know
    give_up("import", text=describe(e))


class Group(Driver):
    """What stands above the drivers: it has children and nothing else."""

    @classmethod
    def client(cls):
        return "jumpstarter_driver_composite.client.CompositeClient"


class Refused(Exception):
    """Says why a driver cannot be had, in words that the other side knows."""

    def __init__(self, kind, text, **more):
        super().__init__(text)
        self.answer = dict(kind=kind, text=text, **more)


def find(path):
    """The driver class that a type names."""
    importlib.invalidate_caches()
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise Refused("class", f"{path!r} names no class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name and (module_name == e.name or module_name.startswith(e.name + ".")):
            raise Refused("missing", describe(e), module=e.name)
        raise Refused("import", describe(e), module=e.name)
    except BaseException as e:  # SystemExit, too
        raise Refused("import", describe(e))
    cls = getattr(module, name, None)
    if not (inspect.isclass(cls) and issubclass(cls, Driver)):
        there = [f"{module_name}.{n}" for n, v in vars(module).items() if inspect.isclass(v) and issubclass(v, Driver)]
        raise Refused("class", f"{module_name} has no driver {name}", there=sorted(there))
    return cls


def look(path):
    """What can be told of a driver without making one."""
    cls = find(path)
    try:
        client = cls.client()
    except BaseException:  # a proxy has none
        client = ""
    fields, required = [], []
    for f in getattr(cls, "__dataclass_fields__", {}).values():
        if f.init and f.name not in ("children", "description", "methods_description"):
            fields.append(f.name)
            if type(f.default).__name__ == type(f.default_factory).__name__ == "_MISSING_TYPE":
                required.append(f.name)
    return dict(client=client, kind=getattr(cls, "driver_type", ""), fields=fields, required=required)


class Loader(yaml.SafeLoader):
    """Gives YAML the meaning that it has for the stock exporter."""

    def __init__(self):
        super().__init__("")

    def node(self, n):
        match n:
            case {"map": pairs}:
                return yaml.MappingNode("tag:yaml.org,2002:map", [(self.node(k), self.node(v)) for k, v in pairs])
            case {"list": items}:
                return yaml.SequenceNode(n.get("tag") or "tag:yaml.org,2002:seq", [self.node(i) for i in items])
        text, plain = n.get("text", ""), n.get("plain", False)
        tag = n.get("tag") or self.resolve(yaml.ScalarNode, text, (plain, not plain))
        return yaml.ScalarNode(tag, text)


def plain(n):
    return {} if n is None else Loader().construct_document(Loader().node(n))


def declaration(d):
    """A node as the stock package's config declares it."""
    if d.get("ref"):
        return {"ref": d["ref"]}
    children = {c["name"]: declaration(c) for c in d.get("children") or []}
    if not d.get("type"):
        return {"children": children}
    find(d["type"])  # says more than the package does
    return {
        "type": d["type"],
        "description": d.get("description") or None,
        "methods_description": d.get("methods") or {},
        "config": plain(d.get("config")),
        "children": children,
    }


class Tree:
    def __init__(self):
        self.root = Group()
        self.session = Session(root_device=self.root)
        self.parts = {}  # what has been opened, by path
        self.names = {}  # of loggers, and the paths of their drivers

    def group(self, path, make):
        at = self.root
        for name in path:
            if name not in at.children:
                if not make:
                    return None
                at.children[name] = Group()
            at = at.children[name]
        return at

    def settle(self):
        """Lets the session know what there is now."""
        self.session.mapping = {d.uuid: d for part in self.parts.values() for d in part}

    def name(self, driver, path):
        """Gives a driver a logger of its own: drivers of one class share one."""
        try:
            logger = logging.getLogger(f"{driver.logger.name}.{'.'.join(path)}")
            logger.setLevel(driver.log_level)
            driver.logger = logger
            self.names[logger.name] = path
        except Exception:  # one that does not want it has its class's
            pass
        for name, child in driver.children.items():
            self.name(child, path + [name])

    def open(self, path, decl):
        """Makes a driver with all below it, and returns its reports."""
        self.close(path)
        driver = Instance.model_validate(declaration(decl)).instantiate()
        above = self.group(path[:-1], True)
        above.children[path[-1]] = driver
        try:
            part = driver.enumerate(root=self.root, name=path[-1])
            reports = [d.report(parent=parent, name=name) for _, parent, name, d in part]
            driver.reset()
        except BaseException:
            del above.children[path[-1]]
            driver.close()
            raise
        self.parts[tuple(path)] = [d for _, _, _, d in part]
        self.settle()
        self.name(driver, path)
        return base64.b64encode(jumpstarter_pb2.GetReportResponse(reports=reports).SerializeToString()).decode()

    def close(self, path):
        above = self.group(path[:-1], False)
        driver = above and above.children.pop(path[-1], None)
        if driver is None:
            return
        self.parts.pop(tuple(path), None)
        self.settle()
        driver.close()

    def reset(self, path):
        if driver := self.group(path, False):
            driver.reset()

    def end(self):
        for name, driver in reversed(list(self.root.children.items())):
            try:
                driver.close()
            except BaseException as e:
                print(f"close {name}: {describe(e)}", file=sys.stderr)


class Handler(logging.Handler):
    """Sends log records to the exporter. Those of calls it makes itself.

    A call is not held up by what it logs: records are sent together, soon after.
    """

    SOON = 0.01  # seconds

    def __init__(self, tree):
        super().__init__()
        self.tree = tree
        self.records = collections.deque()
        self.some = threading.Event()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while self.some.wait():
            time.sleep(self.SOON)
            self.flush()

    def flush(self):
        self.some.clear()
        with lock:
            text = b""
            while self.records:
                text += json.dumps(dict(log=self.records.popleft())).encode() + b"\n"
            write(text)

    def emit(self, record):
        try:
            if hasattr(record, "operation"):
                return
            text = record.getMessage()
            if record.exc_info and record.exc_info[1]:
                text += ": " + describe(record.exc_info[1])
            path = self.tree.names.get(record.name)
            self.records.append(dict(logger=record.name, level=record.levelname, text=text, path=path))
            if not self.some.is_set():
                self.some.set()
        except Exception:
            self.handleError(record)


def answer(tree, line):
    match line["op"]:
        case "look":
            return look(line["type"])
        case "open":
            return dict(reports=tree.open(line["path"], line["decl"]))
        case "close":
            tree.close(line["path"])
        case "reset":
            tree.reset(line["path"])
    return {}


async def main(socket):
    tree = Tree()
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    handler = Handler(tree)
    root.addHandler(handler)
    tree.session.update_status(ExporterStatus.LEASE_READY)
    server = grpc.aio.server()
    jumpstarter_pb2_grpc.add_ExporterServiceServicer_to_server(tree.session, server)
    router_pb2_grpc.add_RouterServiceServicer_to_server(tree.session, server)
    if not server.add_insecure_port(f"unix://{socket}"):
        give_up("socket", text=f"cannot serve on {socket}")
    await server.start()

    loop, lines = asyncio.get_running_loop(), asyncio.Queue()

    def read():  # a thread of its own: whatever drivers do, the end is noticed
        try:
            for line in told:
                loop.call_soon_threadsafe(lines.put_nowait, json.loads(line))
        finally:
            loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    say(ready=dict(python=sys.version.split()[0], program=sys.executable))
    # Drivers are made in the thread of the loop, as the stock exporter does.
    while (line := await lines.get()) is not None:
        try:
            reply = answer(tree, line)
        except Refused as e:
            reply = dict(error=e.answer)
        except BaseException as e:
            reply = dict(error=dict(kind="driver", text=describe(e)))
        say(id=line["id"], **reply)
    tree.end()
    handler.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of drivers may go on for ever


asyncio.run(main(sys.argv[1]))
