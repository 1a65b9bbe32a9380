"""Flashes an image with the stock client and dumps it again.

    python large.py ADDRESS IMAGE DUMP [CODEC]

With a codec, both go packed. Prints the sum of what was dumped, unpacked, and
the seconds that the two took.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from contextlib import ExitStack

os.environ["TERM"] = "dumb"  # no progress bars

from anyio.from_thread import start_blocking_portal  # noqa: E402
from backports import zstd  # noqa: E402

from jumpstarter.client import client_from_path  # noqa: E402
from jumpstarter.streams.encoding import Compression  # noqa: E402

address, image, dump, *codec = sys.argv[1:]
codec = Compression(codec[0]) if codec else None
unpacked = open
if codec:
    unpacked = zstd.open
    with open(image, "rb") as plain, zstd.open(image + ".zst", "wb") as packed:
        shutil.copyfileobj(plain, packed, 1 << 20)
    image += ".zst"

with start_blocking_portal() as portal, ExitStack() as stack:
    tree = client_from_path(address, portal, stack, allow=[], unsafe=True, insecure=True)
    with portal.wrap_async_context_manager(tree) as client:
        start = time.monotonic()
        client.flasher.flash(image, compression=codec)
        flashed = time.monotonic()
        client.flasher.dump(dump, compression=codec)
        dumped = time.monotonic()

with unpacked(dump, "rb") as f:
    total = hashlib.file_digest(f, "sha256").hexdigest()
print(json.dumps({"sum": total, "flash": flashed - start, "dump": dumped - flashed}))
