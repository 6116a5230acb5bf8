"""How long it takes to say what the whole study would do and cost: Snakemake's dry run, and the budget.

    python perf/bench_planning.py

Wall seconds of `snakemake --profile slurm -n --quiet` and of `scripts/budget.py` for config.yaml alone; both together should end in 15 s.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import alternate, machine, parser, prepare, report, run, spread, summary, table

SIDES = {
    "dry run": ["-m", "snakemake", "--profile", "slurm", "-n", "--quiet"],
    "budget": ["scripts/budget.py"],
}
LIMIT = 15.0  # seconds of both


def main() -> None:
    options = parser(__doc__).parse_args()
    prepare(options)
    before = machine()

    def spent(arguments: list[str]) -> float:
        with tempfile.TemporaryDirectory() as name:
            start = time.perf_counter()
            run([sys.executable, *arguments], Path(name) / "log")
            return time.perf_counter() - start

    seconds = alternate({name: lambda given=arguments: spent(given) for name, arguments in SIDES.items()}, options.repeats)
    sides = {name: summary(values) for name, values in seconds.items()}
    both = sum(side["median"] for side in sides.values())
    told = subprocess.run([sys.executable, "scripts/budget.py", "--json"], capture_output=True, text=True, check=True).stdout
    jobs = json.loads(told)["total"]["jobs"]
    rows = [[name, " ".join(["python", *SIDES[name]]), spread(side)] for name, side in sides.items()]
    text = table(["what", "command", "wall seconds"], [*rows, ["both", "", f"{both:.2f}"]])
    text += f"\nconfig.yaml: {jobs:,} jobs. Medians of {options.repeats} (least to most), in turns. Wanted: both in {LIMIT:.0f} s.\n"
    record = {"repeats": options.repeats, "jobs": jobs, "sides": sides, "both": both, "limit": LIMIT}
    report(options, "bench_planning", "Planning the whole study", before, record, text)


if __name__ == "__main__":
    main()
