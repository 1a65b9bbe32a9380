"""Reports, calls, status, logs, and what is refused."""

import logging
import uuid
from concurrent.futures import ThreadPoolExecutor

from client import ABSENT, CLIENT, NAME, PATIENCE, Wire, one_of, poll, raises, refused, same
from grpc import StatusCode as Code
from jumpstarter_driver_composite.client import CompositeClient
from jumpstarter_driver_network.client import NetworkClient
from jumpstarter_driver_power.client import PowerClient
from jumpstarter_driver_power.common import PowerReading
from jumpstarter_driver_pyserial.client import PySerialClient
from jumpstarter_protocol import jumpstarter_pb2, jumpstarter_pb2_grpc
from table import case

from jumpstarter.client.core import DriverError, DriverInvalidArgument, DriverMethodNotImplemented
from jumpstarter.common import ExporterStatus

POWER = "jumpstarter_driver_power.client.PowerClient"
NETWORK = "jumpstarter_driver_network.client.NetworkClient"
SERIAL = "jumpstarter_driver_pyserial.client.PySerialClient"
COMPOSITE = "jumpstarter_driver_composite.client.CompositeClient"
BUS = "jumpstarter_driver_network.client.DbusNetworkClient"
VNC = "jumpstarter_driver_vnc.client.VNClient"
SHELL = "jumpstarter_driver_shell.client.ShellClient"
STORAGE = "jumpstarter_driver_opendal.client."


def status(name):
    return ExporterStatus[name].to_proto()


# The tree of harness.yaml as GetReport must give it: depth first, a node
# before its children, children in the order of the file.
TREE = [
    ("", None, COMPOSITE),
    ("power", "", POWER),
    ("sync", "", POWER),
    ("pinned", "", POWER),
    ("tcp", "", NETWORK),
    ("mirror", "", NETWORK),
    ("refused", "", NETWORK),
    ("udp", "", NETWORK),
    ("unix", "", NETWORK),
    ("echo", "", NETWORK),
    ("websocket", "", NETWORK),
    ("bus", "", BUS),
    ("vsock", "", NETWORK),
    ("vnc", "", VNC),
    ("tcp", "vnc", NETWORK),
    ("flasher", "", STORAGE + "FlasherClient"),
    ("mux", "", STORAGE + "StorageMuxClient"),
    ("muxflasher", "", STORAGE + "StorageMuxFlasherClient"),
    ("files", "", STORAGE + "OpendalClient"),
    ("shell", "", SHELL),
    ("serial", "", SERIAL),
    ("slow", "", SERIAL),
    ("tty", "", SERIAL),
    ("absent", "", SERIAL),
    ("main rail", "", POWER),
    ("größe ⚡", "", POWER),
    ("v1.8", "", POWER),
    ("group", "", COMPOSITE),
    ("inner", "group", POWER),
    ("deeper", "group", COMPOSITE),
    ("echo", "deeper", NETWORK),
    ("alias", "", POWER),
    ("wing", "", COMPOSITE),
    ("echo", "wing", NETWORK),
]


@case("report/tree")
def _(j):
    names, got = {}, []
    for r in j.wire.report().reports:
        parent = names[r.parent_uuid] if r.HasField("parent_uuid") else None
        got.append((r.labels.get(NAME, ""), parent, r.labels[CLIENT]))
        names[r.uuid] = got[-1][0]
    same("(name, parent, client) of the reports", got, TREE)
    root = j.reports[0]
    same("the root has a name", NAME in root.labels, False)
    same("the root has a parent", root.HasField("parent_uuid"), False)


@case("report/exporter")
def _(j):
    one, two = j.wire.report(), j.wire.report()
    same("the exporter's uuid of two reports", two.uuid, one.uuid)
    same("its canonical form", str(uuid.UUID(one.uuid)), one.uuid)
    same("the reports of the second", list(two.reports), list(one.reports))
    # 0.9.0 has no labels, its successor has the exporter's name.
    if dict(one.labels) not in ({}, {NAME: "interop"}):
        raise AssertionError(f"labels = {dict(one.labels)}; want none or the name")
    same("alternative endpoints", list(one.alternative_endpoints), [])


@case("report/uuids")
def _(j):
    shared = {"alias": j.report("inner", j.report("group")), "wing": j.report("deeper", j.report("group"))}
    for name, target in shared.items():
        same(f"the uuid of the reference {name}", j.uuid(name), target.uuid)
    own = [r.uuid for r in j.reports if r.labels.get(NAME) not in shared]
    for u in own:
        same(f"{u} in its canonical form", str(uuid.UUID(u)), u)
    # wing/echo is group/deeper/echo once more.
    same("distinct uuids among the nodes", len(set(own)), len(own) - 1)


@case("report/pinned")
def _(j):
    r = j.report("pinned")
    same("uuid", r.uuid, "6ba7b810-9dad-41d1-80b4-00c04fd430c8")
    same("labels", dict(r.labels), {"bench": "7", CLIENT: POWER, NAME: "pinned"})
    j.client.children["pinned"].on()


@case("report/descriptions")
def _(j):
    same("of the root", j.reports[0].description, "A bench for the judge")
    power = j.report("power")
    same("of power", power.description, "The supply of the device")
    same("of power's methods", dict(power.methods_description), {"on": "Lets the current flow"})
    same("of group/deeper", j.report("deeper", j.report("group")).description, "One more floor")
    same("sync has one", j.report("sync").HasField("description"), False)
    same("of sync's methods", dict(j.report("sync").methods_description), {})
    # A reference reports its target, under its own name and parent.
    same("of the reference wing", j.report("wing").description, "One more floor")


@case("report/client classes")
def _(j):
    kinds = {
        "power": PowerClient,
        "sync": PowerClient,
        "tcp": NetworkClient,
        "udp": NetworkClient,
        "unix": NetworkClient,
        "echo": NetworkClient,
        "serial": PySerialClient,
        "tty": PySerialClient,
        "group": CompositeClient,
        "alias": PowerClient,
        "wing": CompositeClient,
    }
    same("the root", type(j.client), CompositeClient)
    for name, kind in kinds.items():
        same(name, type(j.client.children[name]), kind)
    same("the root's children", list(j.client.children), [n for n, parent, _ in TREE if parent == ""])


@case("report/unknown client class")
def _(j):
    """A client without a driver's package uses the rest of the tree."""
    import sys

    name = "jumpstarter_driver_pyserial.client"
    kept = sys.modules[name]
    sys.modules[name] = None  # importing it now says that it is not there
    try:
        with j.connect(j.main, insecure=True) as client:
            same("the class of serial", type(client.serial).__name__, "StubDriverClient")
            e = raises("a call of serial", ImportError, client.serial.call, "set_dtr", True)
            if "version mismatch" not in str(e):
                raise AssertionError(f"the error of a call of serial: {e}")
            client.power.on()
            commands = client.cli().commands
            same("serial among the commands", "serial" in commands, False)
            same("power among the commands", "power" in commands, True)
    finally:
        sys.modules[name] = kept


@case("report/forbidden client class")
def _(j):
    allow = ["jumpstarter_driver_composite.*", "jumpstarter_driver_power.*"]
    with j.connect(j.main, insecure=True, allow=allow, unsafe=False) as client:
        same("the class of echo", type(client.echo).__name__, "StubDriverClient")
        same("the class of group.inner", type(client.group.inner), PowerClient)
        client.group.inner.on()


@case("call/null result")
def _(j):
    for name in ("power", "sync"):
        for method in ("on", "off"):
            same(f"{name}.{method}", j.wire.call(j.uuid(name), method).WhichOneof("kind"), "null_value")
    same("the client's power.on()", j.client.power.on(), None)


@case("call/string result")
def _(j):
    port = j.peers.names()["tcp"]
    same("tcp.address()", j.client.tcp.address(), f"tcp://127.0.0.1:{port}")
    port = j.peers.names()["udp"]
    same("udp.address()", j.client.udp.address(), f"udp://127.0.0.1:{port}")


@case("call/response")
def _(j):
    request = jumpstarter_pb2.DriverCallRequest(uuid=j.uuid("power"), method="on")
    # Nobody reads the uuid of a response; it must be one all the same.
    got = j.wire.exporter.DriverCall(request, timeout=PATIENCE).uuid
    same("the uuid of a response, parsed and printed", str(uuid.UUID(got)), got)


@case("call/names")
def _(j):
    for name in ("main rail", "größe ⚡", "v1.8"):
        j.client.children[name].on()


@case("call/through references")
def _(j):
    j.client.alias.on()
    same("the uuid of alias", j.client.alias.uuid, j.client.group.inner.uuid)
    same("the uuid of wing.echo", j.client.wing.echo.uuid, j.client.group.deeper.echo.uuid)
    with j.wire.logs() as logs:
        j.client.alias.off()
        poll(lambda: "power off" in logs.messages(), "the record of alias.off()")


@case("call/many at once")
def _(j):
    with ThreadPoolExecutor(16) as pool:
        done = [pool.submit(j.wire.call, j.uuid("power"), "on") for _ in range(200)]
        done += [pool.submit(j.client.sync.on) for _ in range(200)]
        for f in done:
            f.result(10)


@case("call/serial lines")
def _(j):
    """A loop has lines that can be set, and no connection to close."""
    for method in ("set_dtr", "set_rts"):
        j.client.serial.call(method, True)
        j.client.serial.call(method, False)
    j.client.serial.call("close")
    j.client.serial.call("close")


@case("streaming/read")
def _(j):
    want = [PowerReading(voltage=0.0, current=0.0), PowerReading(voltage=5.0, current=2.0)]
    for name in ("power", "sync", "alias"):
        same(f"{name}.read()", list(j.client.children[name].read()), want)
    got = [(r.WhichOneof("kind"), dict(r.struct_value)) for r in j.wire.streaming(j.uuid("power"), "read")]
    same("on the wire", got, [("struct_value", {"voltage": v, "current": c}) for v, c in ((0.0, 0.0), (5.0, 2.0))])


@case("streaming/left half way")
def _(j):
    for _ in range(20):
        readings = j.client.power.read()
        next(readings)
        readings.close()
    same("readings after that", len(list(j.client.power.read())), 2)


@case("status/at readiness")
def _(j):
    s = j.wire.status()
    same("status", s.status, status("LEASE_READY"))
    same("message", s.message, "Ready for commands")
    same("version", s.status_version, 1)
    same("previous", s.previous_status, status("AVAILABLE"))
    same("previous is set", s.HasField("previous_status"), True)


@case("status/monitor")
def _(j):
    async def ready():
        async with j.client.status_monitor_async() as monitor:
            return await monitor.wait_for_status(ExporterStatus.LEASE_READY, timeout=PATIENCE)

    same("the stock monitor saw LEASE_READY", j.portal.call(ready), True)
    same("the stock client's status", j.portal.call(j.client.get_status_async), ExporterStatus.LEASE_READY)


@case("status/reset", defect="Reset is declared and not implemented", shows="UNIMPLEMENTED")
def _(j):
    j.wire.reset()
    j.client.power.on()
    same("status after Reset", j.wire.status().status, status("LEASE_READY"))


@case(
    "status/end session",
    last=True,
    defect="EndSession without a lease leaves the status AVAILABLE, in which later clients wait for ever",
    shows="status after EndSession = 2; want 4",
)
def _(j):
    wire = Wire(j.where["guarded"], [("x-jumpstarter-passphrase", j.where["passphrase"])])
    try:
        same("success", wire.end_session().success, True)
        # The stock exporter changes the status a moment later.
        try:
            poll(lambda: wire.status().status != status("LEASE_READY"), "a change", timeout=1)
        except AssertionError:
            pass
        same("status after EndSession", wire.status().status, status("LEASE_READY"))
        wire.call(wire.report().reports[1].uuid, "on")
        same("success of the second", wire.end_session().success, True)
    finally:
        wire.close()


@case("log/record")
def _(j):
    with j.wire.logs() as logs:
        j.client.power.on()
        record = poll(
            lambda: next((r for r in logs.records[::-1] if r.message == "power on"), None), "the record of on()"
        )
    same("uuid", record.uuid, "")
    same("severity", record.severity, "INFO")
    same("source", record.source, 1)  # LOG_SOURCE_DRIVER
    same("source is set", record.HasField("source"), True)


@case("log/stock client")
def _(j):
    seen = []

    class Handler(logging.Handler):
        def emit(self, record):
            seen.append((record.levelname, record.getMessage()))

    handler, logger = Handler(), logging.getLogger("exporter:driver")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with j.client.log_stream():
            j.client.power.on()
            poll(lambda: ("INFO", "power on") in seen, "the record of on()")
            j.client.power.off()
            poll(lambda: ("INFO", "power off") in seen, "the record of off()")
    finally:
        logger.removeHandler(handler)


@case("log/history")
def _(j):
    """What was logged before anybody listened is told to the first who does."""
    wire = Wire(j.where["tls"], credentials=j.credentials())
    try:
        wire.call(wire.report().reports[1].uuid, "on")
        with wire.logs() as logs:
            poll(lambda: "power on" in logs.messages(), "a record from before")
    finally:
        wire.close()


@case(
    "log/two listeners",
    defect="listeners of the log compete: each record reaches one of them",
    shows="did not happen",
)
def _(j):
    with j.wire.logs() as one, j.wire.logs() as two:
        # A record each proves that both are listening.
        start = [len(one.records), len(two.records)]
        for _ in range(10):
            j.client.power.on()
            j.client.power.off()
        for logs, before in zip((one, two), start, strict=True):
            poll(
                lambda logs=logs, before=before: logs.messages()[before:].count("power off") >= 10,
                "ten records to each listener",
                timeout=3,
            )


@case("error/unknown method")
def _(j):
    power = j.uuid("power")
    for method in ("nonsense", "", "On", "read "):
        for call in (j.wire.call, j.wire.streaming):
            e = refused(f"{method!r}", Code.NOT_FOUND, call, power, method)
            if "not found on driver" not in e.details():
                raise AssertionError(f"details of {method!r}: {e.details()}")
        with j.wire.stream(power, method) as s:
            same(f"a stream of {method!r}", s.code(), Code.NOT_FOUND)
    raises("the client's call", DriverMethodNotImplemented, j.client.power.rescue)
    raises("the client's streaming call", DriverError, lambda: list(j.client.power.streamingcall("nonsense")))


@case("error/not exported")
def _(j):
    """What every Python driver has without exporting it, and other kinds."""
    calls = [("power", "close"), ("power", "reset"), ("power", "report"), ("power", "read"), ("echo", "connect")]
    for name, method in calls:
        e = refused(f"{name}.{method}", Code.NOT_FOUND, j.wire.call, j.uuid(name), method)
        if "missing marker" not in e.details():
            raise AssertionError(f"details of {name}.{method}: {e.details()}")
    refused("power.on, streaming", Code.NOT_FOUND, j.wire.streaming, j.uuid("power"), "on")
    refused("echo.connect, streaming", Code.NOT_FOUND, j.wire.streaming, j.uuid("echo"), "connect")
    for name, method in (("power", "on"), ("power", "read"), ("power", "close"), ("tcp", "address")):
        with j.wire.stream(j.uuid(name), method) as s:
            same(f"a stream of {name}.{method}", s.code(), Code.NOT_FOUND)
    refused("echo.address", Code.NOT_FOUND, j.wire.call, j.uuid("echo"), "address")
    refused("a method of the composite", Code.NOT_FOUND, j.wire.call, j.reports[0].uuid, "on")


@case("error/uuids")
def _(j):
    for u in (str(uuid.uuid4()), "", "power", j.uuid("power")[:-1], j.uuid("power") + "0", "{" * 40):
        for call in (j.wire.call, j.wire.streaming):
            refused(f"the uuid {u!r}", Code.UNKNOWN, call, u, "on")
        with j.wire.stream(u) as s:
            same(f"a stream of the uuid {u!r}", s.code(), Code.UNKNOWN)


@case("error/forms of a uuid")
def _(j):
    u = j.uuid("power")
    for form in (u.upper(), u.replace("-", ""), "{" + u + "}", "urn:uuid:" + u):
        j.wire.call(form, "on")
        same(f"readings of {form}", len(j.wire.streaming(form, "read")), 2)
    u = j.uuid("echo")
    for form in (u.upper(), u.replace("-", ""), "{" + u + "}", "urn:uuid:" + u):
        with j.wire.stream(form) as s:
            s.send(b"x")
            same(f"the stream of {form}", s.read(1), b"x")


@case("error/numbers that are none")
def _(j):
    for x in (float("nan"), float("inf"), float("-inf")):
        refused(f"power.on({x})", Code.INVALID_ARGUMENT, j.wire.call, j.uuid("power"), "on", x)
        refused(f"set_dtr({x})", Code.INVALID_ARGUMENT, j.wire.call, j.uuid("serial"), "set_dtr", x)


@case("error/number of arguments")
def _(j):
    codes = (Code.UNKNOWN, Code.INVALID_ARGUMENT)
    refused("power.on(1)", codes, j.wire.call, j.uuid("power"), "on", 1)
    refused("power.read(1)", codes, j.wire.streaming, j.uuid("power"), "read", 1)
    refused("serial.set_dtr()", codes, j.wire.call, j.uuid("serial"), "set_dtr")
    refused("serial.set_dtr(true, 1)", codes, j.wire.call, j.uuid("serial"), "set_dtr", True, 1)
    raises("the client's call", DriverError, j.client.power.call, "on", 1)


@case("error/refused value")
def _(j):
    refused("refused.address()", Code.INVALID_ARGUMENT, j.wire.call, j.uuid("refused"), "address")
    raises("the client's call", DriverInvalidArgument, j.client.refused.address)


@case("error/size of a request")
def _(j):
    power = j.uuid("power")
    refused("a call of almost 4 MiB", Code.NOT_FOUND, j.wire.call, power, "nonsense", "x" * ((4 << 20) - 1024))
    refused("a call above 4 MiB", Code.RESOURCE_EXHAUSTED, j.wire.call, power, "on", "x" * (4 << 20))
    j.client.power.on()


@case("error/unknown procedure")
def _(j):
    for path in ("/jumpstarter.v1.ExporterService/Nonsense", "/nonsense.v1.Nonsense/On"):
        refused(path, Code.UNIMPLEMENTED, j.wire.channel.unary_unary(path), b"", timeout=PATIENCE)
    stub = jumpstarter_pb2_grpc.ControllerServiceStub(j.wire.channel)
    refused("Dial", Code.UNIMPLEMENTED, stub.Dial, jumpstarter_pb2.DialRequest(), timeout=PATIENCE)


@case("error/unavailable device")
def _(j):
    """A device that is not there is no reason for a node not to be."""
    codes = (Code.UNKNOWN, Code.UNAVAILABLE, Code.INTERNAL)
    refused("absent.set_dtr(true)", codes, j.wire.call, j.uuid("absent"), "set_dtr", True)
    same("absent.close()", j.client.absent.call("close"), None)
    with j.wire.stream(j.uuid("absent")) as s:
        one_of("the status of its stream", s.code(), ABSENT)
