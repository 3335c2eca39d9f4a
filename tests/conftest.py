"""For all tests: one thread, so that numbers are the same everywhere, and neither the user's data nor their cache."""

import os
import tempfile

# Before torch is imported; the processes that a test starts inherit all three.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("GENAI_DATA", None)
os.environ["GENAI_CACHE"] = os.path.join(tempfile.gettempdir(), f"genai-tests-cache-{os.getuid()}")
