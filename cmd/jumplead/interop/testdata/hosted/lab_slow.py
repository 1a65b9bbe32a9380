import time

time.sleep(1.5)

from lab_gadget import Gadget  # noqa: E402, F401
