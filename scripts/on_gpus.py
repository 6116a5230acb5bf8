"""Run a command on GPUs that no other job of this machine is using: the first free ones, alone, until it ends.

Example: python scripts/on_gpus.py 1 python scripts/evaluate.py --spec '{"benchmarks": …}' --checkpoint folder

Snakemake counts the GPUs of its jobs but gives them none in particular, so on a machine with several all jobs would take the first.
"""

import os
import sys

from untaxed.machine import take_gpus
from untaxed.records import UserError


def main(arguments: list[str]) -> None:
    if len(arguments) < 2 or not arguments[0].isdigit():
        raise SystemExit(__doc__)
    try:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(take_gpus(int(arguments[0])))
        os.execvp(arguments[1], arguments[1:])
    except (UserError, OSError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
