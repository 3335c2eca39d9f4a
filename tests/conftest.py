"""For all tests: one thread, so that numbers are the same everywhere."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; the processes that a test starts inherit it
