"""The other side of TestStock: what a Jumpstarter release makes of our messages.

Reads {message name: [wire format in base64, ...]} from standard input. Writes the release's version,
its own declarations in the form of wire.txt, and for each message, in order, what it understood as JSON
together with its re-encoding: once of the message it parsed, once of one that it built from that JSON.
"""

import base64
import json
import sys
from importlib.metadata import version

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from jumpstarter_protocol import client_pb2, jumpstarter_pb2, kubernetes_pb2, router_pb2  # noqa: F401

pool = descriptor_pool.Default()
FILES = ["client/v1/client", "v1/common", "v1/jumpstarter", "v1/kubernetes", "v1/router"]


def name(proto):
    """The type of a field, as wire.txt writes it, given its FieldDescriptorProto."""
    if proto.type_name:
        return proto.type_name.lstrip(".")
    return descriptor_pb2.FieldDescriptorProto.Type.Name(proto.type).removeprefix("TYPE_").lower()


def field(proto, entries):
    if proto.type_name in entries:
        return "map<%s, %s>" % tuple(name(f) for f in entries[proto.type_name].field)
    if proto.label == proto.LABEL_REPEATED:
        return "repeated " + name(proto)
    return ("optional " if proto.proto3_optional else "") + name(proto)


def method(proto):
    request = ("stream " if proto.client_streaming else "") + proto.input_type.lstrip(".")
    response = ("stream " if proto.server_streaming else "") + proto.output_type.lstrip(".")
    return f"{proto.name}({request}) returns ({response})"


def declarations():
    for path in FILES:
        file = descriptor_pb2.FileDescriptorProto()
        pool.FindFileByName(f"jumpstarter/{path}.proto").CopyToProto(file)
        for m in file.message_type:
            full = f"{file.package}.{m.name}"
            entries = {f".{full}.{n.name}": n for n in m.nested_type if n.options.map_entry}
            yield f"{full} in {file.name}"
            yield from (f"{full}.{f.name} = {f.number} {field(f, entries)}" for f in m.field)
        for e in file.enum_type:
            yield f"{file.package}.{e.name} in {file.name}"
            yield from (f"{file.package}.{e.name}.{v.name} = {v.number}" for v in e.value)
        for s in file.service:
            yield f"{file.package}.{s.name} in {file.name}"
            yield from (f"{file.package}.{s.name}.{method(m)}" for m in s.method)


def answer(message, wire):
    cls = message_factory.GetMessageClass(pool.FindMessageTypeByName(message))
    parsed = cls.FromString(base64.b64decode(wire))
    understood = json_format.MessageToDict(parsed, preserving_proto_field_name=True)
    built = json_format.ParseDict(understood, cls())
    return {
        "json": understood,
        "parsed": base64.b64encode(parsed.SerializeToString()).decode(),
        "built": base64.b64encode(built.SerializeToString()).decode(),
    }


json.dump(
    {
        "version": version("jumpstarter-protocol"),
        "declarations": list(declarations()),
        "messages": {m: [answer(m, w) for w in wires] for m, wires in json.load(sys.stdin).items()},
    },
    sys.stdout,
)
