"""For all tests: one thread, so that numbers are the same everywhere, and a cache that is not the user's."""

import os
import tempfile

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; the processes that a test starts inherit it
os.environ.setdefault("GENAI_CACHE", os.path.join(tempfile.gettempdir(), f"genai-tests-cache-{os.getuid()}"))
