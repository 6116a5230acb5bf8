"""How every command in `scripts/` starts: one-line errors, exit codes that Snakemake understands, and the warm server when one runs."""

import os
import sys
from collections.abc import Callable

from untaxed.machine import huge_pages, offline

SAVED = 75  # EX_TEMPFAIL of sysexits.h: the work is saved, the same call goes on with it
STOPPED = 130  # what a shell reports after Ctrl-C
LASTING = "the same command fails again until that is changed"  # under the error of a `records.Lasting`


class Interrupted(SystemExit):
    """A command that was told to stop and has saved its work. `raise Interrupted("saved step 40")` ends it with exit code 75."""

    def __init__(self, message: str = "stopped; the same call continues") -> None:
        super().__init__(SAVED)
        self.message = message

    def __str__(self) -> str:
        return self.message


def run_command(main: Callable[[list[str]], None], network: bool = False) -> None:
    """Call `main` with the command line, in the warm server of `UNTAXED_WARM` if it answers, and exit.

    The hub is switched off, whatever the environment says. `network=True` leaves it on and keeps the command in its own process.
    Exit codes: 0 done; 1 error (a UserError as one line, all else with its traceback); 75 stopped and saved; 130 Ctrl-C.
    """
    if not network:
        offline()
    if not network and (address := os.environ.get("UNTAXED_WARM")):
        from untaxed.warm import call

        code = call(address, os.path.abspath(main.__code__.co_filename))
        if code is not None:
            sys.exit(code)
    huge_pages()
    sys.exit(run_here(main, sys.argv[1:]))


def run_here(main: Callable[[list[str]], None], arguments: list[str]) -> int:
    """Call `main` in this process and return its exit code; `SystemExit` passes through."""
    scripts = os.path.dirname(os.path.abspath(main.__code__.co_filename))
    if sys.path and sys.path[0] == scripts:
        sys.path.append(sys.path.pop(0))  # or scripts/evaluate.py would hide the library `evaluate` from lm-eval
    try:
        main(arguments)
    except Interrupted as stop:
        print(f"stopped: {stop.message}", file=sys.stderr)
        return SAVED
    except KeyboardInterrupt:
        print("stopped by the keyboard", file=sys.stderr)
        return STOPPED
    except Exception as error:
        from untaxed.records import Lasting, UserError  # here, because it brings PyYAML along

        if isinstance(error, UserError):
            print("error: " + " ".join(str(error).split()), file=sys.stderr)
            if isinstance(error, Lasting):
                print(LASTING, file=sys.stderr)
        else:
            import traceback

            traceback.print_exc()
        return 1
    return 0
