"""`python -m benchmarks [NAME ...] [--rounds N] [--busy]`: each in a process of its own, then RESULTS.md."""

import subprocess
import sys

from benchmarks.report import HERE, parser_of, write_table

NAMES = (
    "mlp_vae", "mlp_gan", "dcgan", "unet_ddpm", "pixelcnn_sampling", "gpt", "overhead", "startup", "unet_gpu",
    "families_gpu",
)  # fmt: skip


def main() -> int:
    parser = parser_of("Results go to benchmarks/.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    options = [f"--rounds={chosen.rounds}", *(["--busy"] if chosen.busy else [])]
    failed = False
    for name in chosen.names or NAMES:
        words = [sys.executable, "-m", f"benchmarks.{name}", *options]
        failed |= subprocess.run(words, cwd=HERE.parent).returncode != 0
    write_table(NAMES)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
