"""For all tests: one thread, so that numbers are the same everywhere, and none of the user's own data."""

import os

# Before torch is imported; the processes that a test starts inherit both.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("GENAI_DATA", None)
