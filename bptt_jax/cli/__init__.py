"""The command line: `bptt-jax train | sweep | data | show | eval | predict | …`.

Exit status: 0 done; 1 the training diverged, or a gradient is wrong; 2 bad input, in one
line; 130 interrupted.
"""

import io
import os
import sys
import traceback

COMMANDS = (
    "train", "sweep", "data", "show", "eval", "predict", "export", "launch", "sample",
    "check", "doctor", "convert",
)  # fmt: skip

JOINED = "BPTT_JAX_COORDINATOR"
"""The variable that the processes of `launch` have."""

USAGE = """\
usage: bptt-jax COMMAND [options]

  train    train a recurrent network (default: a character LSTM on text that is here)
  sweep    train it for many settings at once: bptt-jax sweep --lr 1e-4:1e-1:log:16
  data     what is understood of a file: bptt-jax data FILE --sequence NAME --target NAME
  show     all about a run; several side by side: bptt-jax show RUN RUN
  eval     figures of a trained network: eval RUN, or of your data: eval RUN FILE
  predict  what a trained network says of a file: bptt-jax predict RUN FILE
  export   a trained network for use without this package: export RUN OUT.stablehlo
  launch   in several processes: bptt-jax launch --processes 2 -- sweep …
  sample   write text with a trained network: bptt-jax sample RUN --prompt "def "
  check    are the hand-derived gradients right on this machine?
  doctor   all of this installation that a bug report needs, and nothing private
  convert  weights of one library as another's: convert IN OUT --from torch --to flax

bptt-jax COMMAND --help lists the options."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if argv[0] == "--version":
        import bptt_jax

        print(f"bptt_jax {bptt_jax.__version__}")
        return 0
    if argv[0] not in COMMANDS:
        return _fail(f"unknown command {argv[0]!r}; one of: {', '.join(COMMANDS)}")
    try:
        command = _command(argv[0])
        from bptt_jax.cli._quiet import quiet

        with quiet():
            return command(argv[1:])
    except SystemExit as stop:  # help
        return int(stop.code or 0)
    except KeyboardInterrupt:
        after = "\n" if sys.stderr.isatty() else ""  # the ^C that a terminal shows
        print(f"{after}interrupted; the same command continues a run", file=sys.stderr)
        return 130
    except ArithmeticError as error:
        _fail(str(error))
        return 1 if type(error).__name__ == "NonFiniteError" else 2
    except BrokenPipeError:
        raise
    except (ValueError, TypeError, OSError, ModuleNotFoundError, MemoryError) as error:
        return _fail(_in_words(error))
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _fail(f"too large for the memory of this machine: {error}")


def _command(name: str):
    """Each command loads what it needs, so that help is quick."""
    if JOINED in os.environ:
        from bptt_jax.cli._launch import join

        join()
    if name == "train":
        from bptt_jax.cli._train import command
    elif name == "sweep":
        from bptt_jax.cli._sweep import command
    elif name == "data":
        from bptt_jax.cli._data import command
    elif name == "show":
        from bptt_jax.cli._show import command
    elif name == "eval":
        from bptt_jax.cli._eval import command
    elif name == "predict":
        from bptt_jax.cli._predict import command
    elif name == "export":
        from bptt_jax.cli._export import command
    elif name == "launch":
        from bptt_jax.cli._launch import command
    elif name == "sample":
        from bptt_jax.cli._sample import command
    elif name == "doctor":
        from bptt_jax.cli._doctor import command
    elif name == "convert":
        from bptt_jax.cli._convert import command
    else:
        from bptt_jax.cli._check import command
    return command


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _fail(message: str) -> int:
    if os.environ.get("BPTT_JAX_DEBUG"):
        traceback.print_exc()
    from bptt_jax.cli._ways import of_the_command

    line = " ".join(of_the_command(message).split())
    print(f"bptt-jax: {line}", file=sys.stderr)
    return 2


def _write_any_character() -> None:
    r"""What an output that is not UTF-8 cannot show is written as \xd7, and ends nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def entry() -> None:
    """The console script."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _write_any_character()
    from bptt_jax.cli._quiet import quiet

    try:
        with quiet():
            if status := main():
                sys.stdout.flush()
                sys.stderr.flush()
                # at once: the way out waits for the other processes of `launch`, and for
                # threads of a save that has failed, which would tell it again
                os._exit(status)
        sys.exit(0)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
