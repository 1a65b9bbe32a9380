"""The ways to reach an exporter: passphrase, TLS, a Unix socket."""

import grpc
from client import EMPTY, PATIENCE, Wire, raises, refused, same
from grpc import StatusCode as Code
from table import case

from jumpstarter.common import ExporterStatus

HEADER = "x-jumpstarter-passphrase"


@case("passphrase/right")
def _(j):
    phrase = j.where["passphrase"]
    with j.connect(j.where["guarded"], insecure=True, passphrase=phrase) as client:
        client.power.on()
        same("readings", len(list(client.power.read())), 2)
        with j.pipe(client.echo) as s:
            s.send(b"hello")
            same("the echo", s.read(5), b"hello")


def everything(wire, uuid):
    """Every procedure, as something to call."""
    return {
        "GetReport": wire.report,
        "GetStatus": wire.status,
        "DriverCall": lambda: wire.call(uuid, "on"),
        "DriverCall of nothing": lambda: wire.call("nonsense", "on"),
        "StreamingDriverCall": lambda: wire.streaming(uuid, "read"),
        "LogStream": lambda: list(wire.exporter.LogStream(EMPTY, metadata=wire.metadata, timeout=PATIENCE)),
        "Reset": wire.reset,
        "EndSession": wire.end_session,
    }


@case("passphrase/wrong or missing")
def _(j):
    phrase = j.where["passphrase"]
    known = Wire(j.where["guarded"], [(HEADER, phrase)])
    uuid = known.report().reports[1].uuid
    known.close()
    attempts = {
        "none": [],
        "empty": [(HEADER, "")],
        "another": [(HEADER, "wrong")],
        "in upper case": [(HEADER, phrase.upper())],
        "its beginning": [(HEADER, phrase[:-1])],
        "with more behind it": [(HEADER, phrase + "x")],
    }
    for what, metadata in attempts.items():
        wire = Wire(j.where["guarded"], metadata)
        try:
            for name, call in everything(wire, uuid).items():
                e = refused(f"{name}, passphrase: {what}", Code.UNAUTHENTICATED, call)
                same(f"details of {name}, passphrase: {what}", e.details(), "invalid or missing passphrase")
            with wire.stream(uuid) as s:
                same(f"Stream, passphrase: {what}", s.code(), Code.UNAUTHENTICATED)
        finally:
            wire.close()


@case("passphrase/stock client without it")
def _(j):
    def use(**how):
        with j.connect(j.where["guarded"], insecure=True, **how):
            pass

    for how in ({}, {"passphrase": "wrong"}):
        e = raises("connecting", grpc.aio.AioRpcError, lambda how=how: use(**how))
        same("the status", e.code(), Code.UNAUTHENTICATED)


@case("tls/stock client")
def _(j):
    with j.connect(j.where["tls"]) as client:
        client.power.on()
        with j.pipe(client.echo) as s:
            s.send(b"hello")
            same("the echo", s.read(5), b"hello")


@case("tls/refused")
def _(j):
    """A client that does not trust the certificate, and one without TLS."""
    other = grpc.ssl_channel_credentials((j.where["stranger"]).encode())
    for what, credentials in (("another authority", other), ("plaintext", None)):
        wire = Wire(j.where["tls"], credentials=credentials)
        try:
            refused(what, Code.UNAVAILABLE, wire.report)
        finally:
            wire.close()
    wire = Wire(j.main, credentials=j.credentials())
    try:
        refused("TLS to plaintext", Code.UNAVAILABLE, wire.report)
    finally:
        wire.close()


@case("local/stock client")
def _(j):
    with j.connect(j.where["local"]) as client:
        client.power.on()
        same("readings", len(list(client.power.read())), 2)
        same("status", j.portal.call(client.get_status_async), ExporterStatus.LEASE_READY)
        with j.pipe(client.echo) as s:
            s.send(b"hello")
            same("the echo", s.read(5), b"hello")


@case("local/status")
def _(j):
    wire = Wire("unix:" + j.where["local"])
    try:
        s = wire.status()
        same("status", s.status, ExporterStatus.LEASE_READY.to_proto())
        same("version", s.status_version, 1)
        same("previous", s.previous_status, ExporterStatus.AVAILABLE.to_proto())
    finally:
        wire.close()
