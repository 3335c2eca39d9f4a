"""`genai COMMAND [key=value ...] [flags]`: the command table, flags, and the exit code of whatever happens.

A single run is composed, checked and dispatched here; Hydra's own main runs sweeps, completion and --info.
Nothing heavy is imported before it is needed: `--help` needs neither Hydra nor torch, a usage error no torch.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from genai_cli.errors import ConfigError, ExitCode, explain

COMMANDS = {
    "train": "train a model on a data set, or go on with a run: model=NAME dataset=NAME, or run=DIR",
    "sample": "new examples from a trained run: run=DIR or run=latest",
    "evaluate": "figures of a trained run on held-out data: run=DIR or run=latest",
    "encode": "the codes of data as a file, by a trained run's encoder: run=DIR or run=latest",
    "compare": "several runs, or models trained for the same time, side by side: runs=[A,B], or model=[A,B] ...",
    "doctor": "what ails a run, with evidence, and what to change: run=DIR or run=latest",
    "report": "one HTML page about a run, with all that is known of it: run=DIR or run=latest",
    "list": "what there is: models, datasets, optimizers, experiments",
}
HELP = """\
genai: train, sample and judge any family of generative model, on any kind of data, one way.

  genai train model=gan dataset=mnist               one run directory under outputs/
  genai train run=latest train.steps=20000          go on with it
  genai train -m model=gan,vae dataset=mnist        a sweep: one job for each combination
  genai sample run=latest num_samples=64 seed=0
  genai evaluate run=latest
  genai compare model=[gan,vae] dataset=mnist budget=5min
  genai doctor run=latest
  genai report run=latest
  genai list models

Commands (genai COMMAND --help says more)
{commands}
Options are written key=value, in any order. Flags: --cfg job (show the configuration and stop), -m (sweep),
--config-dir DIR (YAML presets of your own), --version. Completion: eval "$(genai -sc install=bash)"
"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console script."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell lets it be ignored
        signal.signal(signal.SIGINT, _end_at_once)
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """Ctrl-C before any work. As an exception it could be lost: torch goes on without numpy if its import fails."""
    os.write(sys.stderr.fileno(), b"genai: interrupted\n")
    os._exit(ExitCode.INTERRUPTED)


def _begin_work() -> None:
    """From here on Ctrl-C is an exception, after which the work can put things in order."""
    if signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run(argv: Sequence[str]) -> int:
    """Do what the words after `genai` say, and return the exit code. Problems go to stderr, one line each."""
    try:
        code = _dispatch(list(argv))
        sys.stdout.flush()  # here, where a closed pipe is caught
        return code
    except KeyboardInterrupt:
        print("genai: interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except Exception as error:
        return report(error)


def report(error: Exception) -> int:
    """Tell the user what ended the command, and return its exit code. Only a bug shows a traceback."""
    code, lines = explain(error)
    if code == ExitCode.BUG:
        import traceback

        traceback.print_exception(error)
        lines = ["this is a bug of genai: please report it, with the lines above and the command"]
    if os.environ.get("RANK", "0") == "0" or code == ExitCode.BUG:  # of several processes one speaks
        for line in lines:
            print(f"genai: {line}", file=sys.stderr)
    return code


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="".join(f"  {name:<10}{words}\n" for name, words in COMMANDS.items())))
        return ExitCode.DONE
    if argv[0] == "--version":
        from genai_cli import __version__

        print(f"genai {__version__}")
        return ExitCode.DONE
    if argv[0] in ("-sc", "--shell-completion"):
        from genai_cli import completion

        return completion.run(argv[1:])
    command = next((word for word in argv if word in COMMANDS), None) if argv[0].startswith("-") else argv[0]
    if command not in COMMANDS:
        from genai_cli.suggest import advice

        raise ConfigError(f"{argv[0]} is no command of genai; {advice(argv[0], COMMANDS)}")
    argv.remove(command)
    return _run_list(argv) if command == "list" else _run_command(command, argv)


def _run_list(argv: list[str]) -> int:
    from genai_cli.commands import list as listing

    arguments = _arguments("list", argv)
    if arguments.help:
        print(listing.HELP)
        return ExitCode.DONE
    listing.run(arguments.overrides, arguments.config_dir)
    return ExitCode.DONE


def _run_command(command: str, argv: list[str]) -> int:
    arguments = _arguments(command, argv)
    if arguments.help:
        from genai_cli.commands.help import describe_command

        print(describe_command(command, COMMANDS[command], arguments.overrides, arguments.config_dir))
        return ExitCode.DONE
    if arguments.shell_completion:
        from genai_cli import completion

        return completion.run(arguments.overrides)
    from genai_cli.configure import configure
    from genai_cli.overrides import Overrides

    overrides = Overrides(
        arguments.overrides, command=command, is_sweep=arguments.multirun, config_dir=arguments.config_dir
    )
    if arguments.multirun:
        from genai_cli.commands import sweep

        _begin_work()
        return sweep.run(command, overrides)
    configured = configure(command, next(overrides.jobs()), overrides)
    if arguments.cfg == "job":
        _show(configured.resolved if arguments.resolve else configured.values, arguments.package)
        return ExitCode.DONE
    if arguments.cfg or arguments.info is not None:
        flags = ["--cfg", arguments.cfg] if arguments.cfg else ["--info", arguments.info]
        run_hydra(command, [*flags, *overrides.for_hydra], lambda _: None, overrides.config_dir)
        return ExitCode.DONE
    work = import_module(f"genai_cli.commands.{command}").run  # here torch is imported
    _begin_work()
    return work(configured.config, folder=configured.folder)


def _show(values: dict[str, Any], package: str | None) -> None:
    """Print a configuration, or the part of it that --package names, as YAML."""
    from omegaconf import OmegaConf

    config = OmegaConf.create(values)
    part = config if package in (None, "_global_") else OmegaConf.select(config, package)
    if part is None:
        raise ConfigError(f"--package {package} is no part of the configuration")
    print(OmegaConf.to_yaml(part) if OmegaConf.is_config(part) else part, end="" if OmegaConf.is_config(part) else "\n")


def run_hydra(command: str, argv: list[str], task: Callable[[Any], Any], config_dir: Path | None = None) -> None:
    """Hydra's own program for a command of ours, with `argv` in place of the shell's words. Its errors are raised."""
    import hydra

    from genai_cli.config import conf_dir

    program = hydra.main(config_path=str(conf_dir()), config_name=command, version_base="1.3")(task)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else it prints them and exits
    before = sys.argv
    sys.argv = ["genai", *argv, *(["--config-dir", str(config_dir)] if config_dir else [])]
    try:
        program()
    finally:
        sys.argv = before


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        hint = "options are written key=value, without dashes, and " if message.startswith("unrecognized") else ""
        raise ConfigError(f"{message}; {hint}genai --help shows the flags")


def _arguments(command: str, argv: list[str]) -> argparse.Namespace:
    """Flags and overrides in any order."""
    parser = _Parser(prog=f"genai {command}", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-cd", "--config-dir", type=Path)
    if command != "list":
        parser.add_argument("-c", "--cfg", choices=["job", "hydra", "all"])
        parser.add_argument("-p", "--package")
        parser.add_argument("--resolve", action="store_true")
        parser.add_argument("-i", "--info", nargs="?", const="all")
        parser.add_argument("-m", "--multirun", action="store_true")
        parser.add_argument("-sc", "--shell-completion", action="store_true")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.config_dir is not None and not arguments.config_dir.is_dir():
        raise ConfigError(f"--config-dir {arguments.config_dir} is no folder")
    if command != "list" and (arguments.package or arguments.resolve) and not arguments.cfg:
        raise ConfigError("--package and --resolve belong to --cfg")
    if command != "list" and sum(map(bool, (arguments.cfg, arguments.info, arguments.multirun))) > 1:
        raise ConfigError("--cfg, --info and --multirun exclude one another")
    return arguments
