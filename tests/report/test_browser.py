"""A report in headless Chromium: nothing on the console, all pictures there, readable on a phone."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from genai_cli import cli
from genai_cli.errors import ExitCode

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "chromium")
# Run inside the page, which itself allows no script: what is asked is written into its title.
PROBE = """
<script>addEventListener("load", () => {
  const pictures = [...document.images];
  document.title = JSON.stringify({
    pictures: pictures.length,
    broken: pictures.filter(picture => !picture.complete || !picture.naturalWidth).length,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  });
})</script></head>"""
RUN = (
    "model=vae", "dataset=mnist", "model.width=8", "model.latent_dim=3", "train.steps=4", "train.epochs=null",
    "train.batch_size=8", "train.log_every=2", "train.sample_every=2", "train.evaluate_every=2",
    "train.evaluate_examples=8", "train.num_samples=9", "logger=none", "device=cpu",
)  # fmt: skip


@pytest.mark.browser
@pytest.mark.parametrize("width", [500, 1200])
def test_it_opens_in_a_browser(tmp_path: Path, width: int) -> None:
    folder = tmp_path / "run"
    assert cli.run(["train", *RUN, f"run.dir={folder}"]) == ExitCode.DONE
    assert cli.run(["report", f"run={folder}", "device=cpu", "examples=100"]) == ExitCode.DONE
    page = (folder / "report.html").read_text(encoding="utf-8")
    probed = tmp_path / "probed.html"
    probed.write_text(re.sub("<meta http-equiv[^>]*>", "", page).replace("</head>", PROBE), encoding="utf-8")
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    words += [f"--window-size={width},900", "--enable-logging=stderr", "--v=0"]
    opened = subprocess.run(
        [*words, "--dump-dom", (folder / "report.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    assert "CONSOLE" not in opened.stderr and "<h1>vae on mnist</h1>" in opened.stdout
    asked = subprocess.run([*words, "--dump-dom", probed.as_uri()], capture_output=True, text=True, timeout=120)
    assert '"broken":0' in asked.stdout.replace("&quot;", '"'), asked.stdout[:500]
    assert '"overflow":0' in asked.stdout.replace("&quot;", '"'), asked.stdout[:500]
    assert asked.stdout.count("<img") >= 5
