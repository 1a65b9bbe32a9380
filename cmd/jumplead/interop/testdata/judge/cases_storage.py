"""Images: flashed and dumped, packed and plain, through the client and by URL.

What arrives is compared outside of both programs: the judge reads the file
that the exporter wrote, and unpacks archives with Python's own modules.
"""

import bz2
import gzip
import hashlib
import json
import lzma
import os
import random
import threading
from array import array
from pathlib import Path

from backports import zstd
from client import heart, poll, raises, refused, same, within
from grpc import RpcError
from grpc import StatusCode as Code
from opendal import Operator
from table import case

from jumpstarter.client.core import DriverError
from jumpstarter.streams.encoding import Compression

K, M = 1 << 10, 1 << 20
# Around the pieces in which clients send files, and what one message may hold.
SIZES = (0, 1, 64 * K - 1, 64 * K, 64 * K + 1, 4 * M - 1, 4 * M, 4 * M + 1)
CODECS = ("gzip", "xz", "bz2", "zstd")


def content(size, seed=0):
    """Noise, zeros and counting: a lost, doubled or moved piece shows."""
    noise = random.Random(f"{size} {seed}").randbytes(size - size // 8 * 7)
    return noise + bytes(size // 8 * 6) + array("Q", range(size // 64 + 1)).tobytes()[: size // 8]


def pack(codec, data):
    match codec:
        case "gzip":
            return gzip.compress(data, 1, mtime=0)
        case "xz":
            return lzma.compress(data, preset=0)
        case "bz2":
            return bz2.compress(data, 1)
        case "zstd":
            return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


def unpack(codec, data):
    match codec:
        case "gzip":
            return gzip.decompress(data)
        case "xz":
            return lzma.decompress(data)
        case "bz2":
            return bz2.decompress(data)
        case "zstd":
            return zstd.decompress(data)


def same_bytes(what, got, want):
    """same(), with a short account of the difference."""
    if got != want:
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        raise AssertionError(f"{what}: {len(got)} bytes that differ from byte {at} on; want {len(want)} bytes")


def local(j, name, data=None):
    path = os.path.join(j.peers.folder, name)
    if data is not None:
        Path(path).write_bytes(data)
    return path


def partition(j, name):
    """What the exporter's flasher holds in a partition."""
    found = list(Path(j.peers.temporary).rglob(name))
    same(f"files called {name}", len(found), 1)
    return found[0].read_bytes()


def medium(j, name):
    """The path of the file that is the medium of a mux."""
    mark = os.urandom(24)
    client = j.client.children[name]
    client.host()
    client.write_local_file(local(j, "mark", mark))
    found = [
        p
        for p in Path(j.peers.temporary).rglob("*")
        if p.is_file() and p.stat().st_size == len(mark) and p.read_bytes() == mark
    ]
    same(f"files with the content of {name}", len(found), 1)
    return found[0]


def flashing(codec):
    @case(f"storage/flash, {codec or 'plain'}")
    def _(j):
        disk = medium(j, "muxflasher")
        for size in SIZES:
            data = content(size)
            image = local(j, "image", pack(codec, data) if codec else data)
            j.client.flasher.flash(image, target=f"flash-{codec}", compression=codec and Compression(codec))
            same_bytes(f"the flasher's partition, {size} bytes", partition(j, f"flash-{codec}"), data)
            j.client.muxflasher.flash(image, compression=codec and Compression(codec))
            same_bytes(f"the mux's medium, {size} bytes", disk.read_bytes(), data)


def dumping(codec):
    trouble = {"defect": "a packed dump is cut short without an error", "shows": "is no whole|: 0 bytes that differ"} if codec else {}

    @case(f"storage/dump, {codec or 'plain'}", **trouble)
    def _(j):
        for size in SIZES:
            data = content(size, "dumped")
            image = local(j, "image", data)
            for what in ("flasher", "muxflasher"):
                client = j.client.children[what]
                client.flash(image)
                dump = local(j, f"dump-{what}")
                client.dump(dump, compression=codec and Compression(codec))
                got = Path(dump).read_bytes()
                if codec:
                    try:
                        got = unpack(codec, got)
                    except Exception as e:
                        raise AssertionError(
                            f"the dump of {size} bytes from {what}, {len(got)} bytes, is no whole {codec} file: {e}"
                        ) from None
                same_bytes(f"the dump of {size} bytes from {what}", got, data)


for codec in (None, *CODECS):
    flashing(codec)
    dumping(codec)


@case("storage/dump, one after another")
def _(j):
    """The last pieces of a short dump are not lost to the end of its stream."""
    data = content(70000, "again")
    j.client.flasher.flash(local(j, "image", data))
    for i in range(100):
        dump = local(j, "dump", b"")
        j.client.flasher.dump(dump)
        same_bytes(f"dump {i}", Path(dump).read_bytes(), data)


@case("storage/mux, local files")
def _(j):
    disk = medium(j, "mux")
    for size in SIZES:
        data = content(size, "mux")
        j.client.mux.write_local_file(local(j, "image", data))
        same_bytes(f"the medium, {size} bytes", disk.read_bytes(), data)
        j.client.mux.read_local_file(local(j, "readback"))
        same_bytes(f"what was read back of {size} bytes", Path(local(j, "readback")).read_bytes(), data)


@case(
    "storage/mux, on the side of the device",
    defect="the mock mux is written while it is on the side of the device",
    shows="None; want DriverError",
)
def _(j):
    image = local(j, "image", content(1000))
    for side in (j.client.mux.dut, j.client.mux.off):
        side()
        raises("a write", DriverError, j.client.mux.write_local_file, image)
        raises("a read", DriverError, j.client.mux.read_local_file, local(j, "readback"))
    j.client.mux.host()
    j.client.mux.write_local_file(image)


# Damage. A failure must not change what is there, nor harm the next transfer.

KEPT = content(70000, "kept")


def must_fail(j, what, archive, codec, target):
    image = local(j, "image", archive)
    try:
        j.client.flasher.flash(image, target=target, compression=Compression(codec))
    except Exception as e:
        if not isinstance(heart(e), DriverError):
            raise
        same_bytes(f"the partition after {what}", partition(j, target), KEPT)
        return
    raise AssertionError(f"{what} was flashed as a success: {len(partition(j, target))} bytes are there")


def damaging(codec):
    target = f"damage-{codec}"
    data = content(300000, "damaged")

    @case(
        f"storage/flash, {codec} cut short",
        defect="an archive that is cut short is flashed as a success",
        shows="was flashed as a success",
    )
    def _(j):
        j.client.flasher.flash(local(j, "kept", KEPT), target=target)
        archive = pack(codec, data)
        for size in (1, 5, len(archive) // 2, len(archive) - 10, len(archive) - 1):
            must_fail(j, f"an archive cut to {size} bytes of {len(archive)}", archive[:size], codec, target)
        j.client.flasher.flash(local(j, "image", archive), target=target, compression=Compression(codec))
        same_bytes("the partition after the whole archive", partition(j, target), data)

    @case(
        f"storage/flash, {codec} of several members",
        defect="of an archive with several members only the first is flashed",
        shows="of 2 members: 1000 bytes",
    )
    def _(j):
        for sizes in ((1000, 1000), (300000, 0, 1, 130000, 64 * K)):
            pieces = [content(size, "member") for size in sizes]
            archive = b"".join(pack(codec, piece) for piece in pieces)
            j.client.flasher.flash(local(j, "image", archive), target=target, compression=Compression(codec))
            same_bytes(f"the partition, of {len(sizes)} members", partition(j, target), b"".join(pieces))

    @case(f"storage/flash, {codec} with a flipped bit")
    def _(j):
        j.client.flasher.flash(local(j, "kept", KEPT), target=target)
        archive = bytearray(pack(codec, data))
        archive[len(archive) // 3] ^= 4
        try:
            unpack(codec, bytes(archive))
        except Exception:
            pass
        else:
            raise AssertionError("the damage cannot be told")
        image = local(j, "image", bytes(archive))
        raises("a flash", DriverError, lambda: j.client.flasher.flash(image, target=target, compression=Compression(codec)))
        j.client.flasher.flash(local(j, "image", pack(codec, data)), target=target, compression=Compression(codec))
        same_bytes("the partition after the whole archive", partition(j, target), data)

    @case(
        f"storage/flash, {codec} and more",
        defect="what follows an archive is passed over in silence",
        shows="was flashed as a success",
    )
    def _(j):
        j.client.flasher.flash(local(j, "kept", KEPT), target=target)
        must_fail(j, "an archive with more behind it", pack(codec, data) + b"more", codec, target)

    @case(f"storage/flash, {codec} that is none")
    def _(j):
        image = local(j, "image", KEPT)
        raises("a flash", DriverError, lambda: j.client.flasher.flash(image, target=target, compression=Compression(codec)))


for codec in CODECS:
    damaging(codec)


@case(
    "storage/flash, cancelled",
    defect="an upload that the client cancels half way is flashed as a success",
    shows="succeeded",
)
def _(j):
    j.client.flasher.flash(local(j, "kept", KEPT), target="cancelled")
    uuid, ended = j.uuid("flasher"), []

    def call(handle):
        try:
            ended.append(j.wire.call(uuid, "flash", handle, "cancelled", timeout=30))
        except RpcError as e:
            ended.append(e)

    for codec in (None, "gzip", "zstd"):
        with j.wire.stream_of(json.dumps({"kind": "resource", "uuid": uuid, "x_jmp_content_encoding": codec})) as s:
            handle = json.loads(s.initial()["resource"])
            thread = threading.Thread(target=call, args=(handle,), daemon=True)
            thread.start()
            data = content(4 * M)
            packed = pack(codec, data) if codec else data
            for at in range(0, len(packed) // 2, 64 * K):
                s.send(packed[at : at + 64 * K])
            poll(s.outgoing.empty, "the first half's departure")
        thread.join(20)
        same("the end of the call", len(ended), 1)
        if not isinstance(ended.pop(), RpcError):
            raise AssertionError(f"the call of a cancelled upload, codec {codec}, succeeded")
        same_bytes("the partition", partition(j, "cancelled"), KEPT)
    j.client.flasher.flash(local(j, "image", data), target="cancelled")
    same_bytes("the partition after a whole upload", partition(j, "cancelled"), data)


# URLs, which the exporter gets and puts itself.


def presigned(j, path, method="GET", **headers):
    return {"kind": "presigned_request", "headers": headers, "url": j.peers.web.endpoint + path, "method": method}


@case("storage/get")
def _(j):
    disk, web = medium(j, "muxflasher"), j.peers.web
    fs = Operator("http", endpoint=web.endpoint)
    for size in SIZES:
        data = content(size, "got")
        path = f"/image-{size}.bin?signature=a%2Fb"
        web.files[path] = web.files["/image"] = data
        j.client.flasher.flash(web.endpoint + path, target="got")
        same_bytes(f"the partition, {size} bytes", partition(j, "got"), data)
        # OpenDAL's operator for HTTP presigns, too.
        j.client.flasher.flash("image", target="got-by-operator", operator=fs)
        same_bytes(f"the partition, {size} bytes by an operator", partition(j, "got-by-operator"), data)
        j.client.muxflasher.flash(web.endpoint + path)
        same_bytes(f"the medium, {size} bytes", disk.read_bytes(), data)
    gets = [path for method, path, _ in web.requests if method == "GET"]
    same("paths that were asked for", set(gets), {f"/image-{n}.bin?signature=a%2Fb" for n in SIZES} | {"/image"})


@case("storage/get, packed")
def _(j):
    """With a codec it is the client that gets, and the exporter that unpacks."""
    data = content(4 * M + 1)
    for codec in CODECS:
        j.peers.web.files["/image"] = pack(codec, data)
        fs = Operator("http", endpoint=j.peers.web.endpoint)
        j.client.flasher.flash("image", target="got-packed", operator=fs, compression=Compression(codec))
        same_bytes(f"the partition, {codec}", partition(j, "got-packed"), data)


@case(
    "storage/get, stored packed",
    defect="an object that is stored with a content encoding is unpacked on the way",
    shows="the partition: .* differ",
)
def _(j):
    """The URL names what the store holds; the client did not ask to unpack it."""
    archive = pack("gzip", content(100000))
    j.peers.web.pages["/image"] = lambda page: page.answer(200, archive, Content_Encoding="gzip")
    j.client.flasher.flash(j.peers.web.endpoint + "/image", target="stored")
    same_bytes("the partition", partition(j, "stored"), archive)


def cut_length(page):
    page.send_response(200)
    page.send_header("Content-Length", "100000")
    page.end_headers()
    page.wfile.write(b"x" * 50000)
    page.close_connection = True


def cut_chunks(page):
    page.send_response(200)
    page.send_header("Transfer-Encoding", "chunked")
    page.end_headers()
    page.wfile.write(b"%x\r\n" % 50000 + b"x" * 50000 + b"\r\n")
    page.close_connection = True


@case("storage/get, failures")
def _(j):
    """The call fails, and what was there stays or is known to be spoilt."""
    pages = j.peers.web.pages
    pages["/refused"] = lambda page: page.answer(403, b"no")
    pages["/broken"] = lambda page: page.answer(500, b"oh")
    pages["/cut"] = cut_length
    pages["/cut-chunks"] = cut_chunks
    for path in ("/missing", "/refused", "/broken", "/cut", "/cut-chunks"):
        error = raises(path, DriverError, lambda: j.client.flasher.flash(j.peers.web.endpoint + path, target="failed"))
        for status in {"/missing": "404", "/refused": "403", "/broken": "500"}.get(path, "").split():
            same(f"{path}: the error names the status", status in str(error), True)
    j.peers.web.files["/image"] = KEPT
    j.client.flasher.flash(j.peers.web.endpoint + "/image", target="failed")
    same_bytes("the partition after a good URL", partition(j, "failed"), KEPT)


@case("storage/get, redirected elsewhere")
def _(j):
    """Another host does not get what is the first one's secret."""
    web = j.peers.web
    elsewhere = web.endpoint.replace("127.0.0.1", "localhost")
    web.pages["/start"] = lambda page: page.answer(302, Location=elsewhere + "/end%40x")
    web.files["/end%40x"] = KEPT
    secrets = {"Authorization": "Bearer x", "Cookie": "a=b", "X-Amz-Token": "x", "X-Goog-Token": "x"}
    handle = presigned(j, "/start", **secrets, **{"X-Plain": "kept"})
    j.client.flasher.call("flash", handle, "redirected")
    same_bytes("the partition", partition(j, "redirected"), KEPT)
    (_, _, first), (_, path, second) = web.requests
    same("the path asked for elsewhere", path, "/end%40x")
    same("the headers of the first", {k: first.get(k) for k in secrets}, secrets)
    same("the headers elsewhere", {k: second[k] for k in (*secrets, "X-Plain") if k in second}, {"X-Plain": "kept"})


@case("storage/put", defect="a dump to a URL never ends", shows="nothing within")
def _(j):
    flasher, web = j.client.flasher, j.peers.web
    for size in SIZES:
        data = content(size, "put")
        flasher.flash(local(j, "image", data), target="put")
        path = f"/put-{size}?signature=a%2Fb"
        within(j.portal, 5, "dump", flasher.call_async, "dump", presigned(j, path, "PUT"), "put")
        same_bytes(f"what the server got of {size} bytes", web.files[path], data)
    j.client.mux.host()
    j.client.mux.write_local_file(local(j, "image", data))
    within(j.portal, 5, "read", j.client.mux.call_async, "read", presigned(j, "/mux", "PUT"))
    same_bytes("what the server got of the mux", web.files["/mux"], data)


@case("storage/put, refused", defect="a dump to a URL never ends", shows="nothing within")
def _(j):
    flasher = j.client.flasher
    flasher.flash(local(j, "image", KEPT), target="put-refused")
    for status in (403, 500, 507):
        j.peers.web.pages["/no"] = lambda page: page.answer(status, b"no room")
        error = raises(f"a PUT that is answered with {status}", DriverError, lambda: within(
            j.portal, 5, "dump", flasher.call_async, "dump", presigned(j, "/no", "PUT"), "put-refused"))
        same("the error names the status", str(status) in str(error), True)


@case("storage/handles")
def _(j):
    uuid = j.uuid("flasher")
    malformed = (None, 1, "x", {}, {"kind": "client_stream"}, {"kind": "nonsense"}, presigned(j, "/x", "get"),
                 presigned(j, "/x", "DELETE"))
    for handle in malformed:
        refused(f"the handle {handle}", Code.INVALID_ARGUMENT, j.wire.call, uuid, "flash", handle, "handles")
    unknown = {"kind": "client_stream", "uuid": "6ba7b810-9dad-41d1-80b4-00c04fd430c8", "x_jmp_content_encoding": None}
    refused("an unknown handle", Code.UNKNOWN, j.wire.call, uuid, "flash", unknown, "handles")
    with j.wire.stream_of(json.dumps({"kind": "resource", "uuid": uuid})) as s:
        handle = json.loads(s.initial()["resource"])
        refused("another driver's handle", Code.UNKNOWN, j.wire.call, j.uuid("muxflasher"), "write", handle)
        s.send(KEPT)
        s.finish()
        same("the call with the handle", j.wire.call(uuid, "flash", handle, "handles").HasField("null_value"), True)
        same_bytes("the partition", partition(j, "handles"), KEPT)
        refused("a used handle", Code.UNKNOWN, j.wire.call, uuid, "flash", handle, "handles")


# Opendal.


@case("files/contents")
def _(j):
    files, root = j.client.files, Path(j.peers.root)
    for size in SIZES:
        data = content(size, "file")
        files.write_from_path("image", local(j, "image", data))
        same_bytes(f"the exporter's file of {size} bytes", (root / "image").read_bytes(), data)
        same(f"the hash of {size} bytes", files.hash("image"), hashlib.sha256(data).hexdigest())
        files.read_into_path("image", local(j, "readback"))
        same_bytes(f"what was read back of {size} bytes", Path(local(j, "readback")).read_bytes(), data)
    stat = files.stat("image")
    same("its length and kind", (stat.content_length, stat.mode.is_file()), (SIZES[-1], True))


@case("files/get by URL")
def _(j):
    j.peers.web.files["/image%40x"] = KEPT
    j.client.files.write_from_path("got", j.peers.web.endpoint + "/image%40x")
    same_bytes("the exporter's file", (Path(j.peers.root) / "got").read_bytes(), KEPT)


@case("files/offsets")
def _(j):
    files, data = j.client.files, content(100000, "offsets")
    files.write_bytes("offsets", data)
    f = files.open("offsets", "rb")
    same("the first position", f.tell(), 0)
    same("seek(70000)", f.seek(70000), 70000)
    same_bytes("the rest", f.read_bytes(), data[70000:])
    same("seek(-3, 2)", f.seek(-3, 2), len(data) - 3)
    same("the last three bytes", f.read_bytes(), data[-3:])
    f.close()
    f = files.open("offsets", "wb")
    f.write_bytes(b"one, ")
    f.write_bytes(b"two")
    f.close()
    same("two writes", files.read_bytes("offsets"), b"one, two")


@case("files/folders")
def _(j):
    files = j.client.files
    files.create_dir("folder/a/b/")
    files.write_bytes("folder/x", b"x")
    same("a list", sorted(files.list("folder/")), ["folder/", "folder/a/", "folder/x"])
    same("a scan", sorted(files.scan("folder/")), ["folder/", "folder/a/", "folder/a/b/", "folder/x"])
    files.copy("folder/x", "folder/a/y")
    files.rename("folder/a/y", "folder/z")
    same("a copy, renamed", files.read_bytes("folder/z"), b"x")
    same("the name it had", files.exists("folder/a/y"), False)
    files.delete("folder/nothing")
    files.remove_all("folder/")
    same("the folder, removed", files.exists("folder/"), False)
    same("on the exporter", (Path(j.peers.root) / "folder").exists(), False)


@case("files/arguments")
def _(j):
    """Upstream takes what looks like a number for one; so do we."""
    uuid, call = j.uuid("files"), j.wire.call
    j.client.files.write_bytes("lax", b"0123456789")
    fd = call(uuid, "open", "lax", "rb").string_value
    for position in (3, 3.0, "3"):
        same(f"seek to {position!r}", call(uuid, "file_seek", fd, position).number_value, 3)
    for what, method, *args in (
        ("a seek to 3.5", "file_seek", fd, 3.5),
        ("a seek to NaN", "file_seek", fd, float("nan")),
        ("a number for a path", "stat", 5),
        ("a truth for a path", "stat", True),
        ("a mode that is none", "open", "lax", "r+"),
        ("a hash that is none", "hash", "lax", "crc32"),
        ("too few arguments", "open", "lax"),
        ("too many arguments", "stat", "lax", "more"),
        ("no handle of a file", "file_tell", "nonsense"),
    ):
        refused(what, Code.INVALID_ARGUMENT, call, uuid, method, *args)
    for what, method, *args in (
        ("a missing file", "stat", "missing"),
        ("a missing file to read", "open", "missing", "rb"),
        ("a folder without its slash", "create_dir", "folder"),
        ("an unknown file", "file_tell", "6ba7b810-9dad-41d1-80b4-00c04fd430c8"),
        ("a URL for a local file", "presign_read", "lax", 60),
    ):
        refused(what, (Code.UNKNOWN, Code.UNIMPLEMENTED), call, uuid, method, *args)
    call(uuid, "file_close", fd)


@case(
    "files/outside",
    defect="a path leads out of the folder that is served",
    shows="is there for the client",
)
def _(j):
    files, out = j.client.files, Path(j.peers.folder)
    (out / "outside").write_bytes(b"secret")
    os.symlink(out / "outside", os.path.join(j.peers.root, "link"))
    try:
        for path in ("../outside", "a/../../outside", "link"):
            try:
                got = files.read_bytes(path)
            except DriverError:
                continue
            raise AssertionError(f"{path} is there for the client: {got}")
        for path in ("../created", "link"):
            raises(f"a write to {path}", DriverError, files.write_bytes, path, b"x")
        raises("a copy", DriverError, files.copy, "../outside", "copied")
        raises("a copy to the outside", DriverError, files.copy, "image", "../copied")
        raises("a removal", DriverError, files.remove_all, "../outside")
        same("what is outside", (out / "outside").read_bytes(), b"secret")
        same("what was created there", (out / "created").exists() or (out / "copied").exists(), False)
    finally:
        os.remove(os.path.join(j.peers.root, "link"))


@case(
    "files/write, cancelled",
    defect="a file whose writing was cancelled is short, under its name",
    shows="differ from byte",
)
def _(j):
    files, uuid = j.client.files, j.uuid("files")
    files.write_bytes("kept", KEPT)
    fd = j.wire.call(uuid, "open", "kept", "wb").string_value
    ended = threading.Event()

    def call(handle):
        try:
            j.wire.call(uuid, "file_write", fd, handle, timeout=30)
        except RpcError:
            pass
        ended.set()

    with j.wire.stream_of(json.dumps({"kind": "resource", "uuid": uuid})) as s:
        threading.Thread(target=call, args=(json.loads(s.initial()["resource"]),), daemon=True).start()
        for _ in range(20):
            s.send(b"x" * 64 * K)
        poll(s.outgoing.empty, "the pieces' departure")
    same("the end of the call", ended.wait(20), True)
    try:
        j.wire.call(uuid, "file_close", fd)
    except RpcError:
        pass
    same_bytes("the file", (Path(j.peers.root) / "kept").read_bytes(), KEPT)
