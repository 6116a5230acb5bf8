"""How long a job takes to start, with and without the warm server: commands that import what a job imports, and end.

    python perf/bench_warm.py --repeats 5

Each command stands in a file of its own and runs through `untaxed.command.run_command`, as every command in scripts/ does.
"""

import os
import sys
import tempfile
from pathlib import Path

from measure import ROOT, alternate, machine, parser, prepare, report, run, spread, summary, table, timed, warm_server

IMPORTS = {
    "train": ("torch", "transformers", "datasets", "trl.trainer.sft_trainer"),
    "evaluate": ("torch", "transformers", "datasets", "lm_eval", "lm_eval.models.huggingface"),
    "rewrite": ("torch", "transformers", "transformers.models.llama.modeling_llama"),
    "figure": ("pandas", "matplotlib.pyplot", "seaborn"),
}
COMMAND = """import importlib
import sys
sys.path.append({scripts!r})
from untaxed.command import run_command

def main(arguments):
    for name in {modules!r}:
        importlib.import_module(name)

if __name__ == "__main__":
    run_command(main)
"""


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--only", nargs="+", choices=IMPORTS, default=list(IMPORTS), help="kinds of jobs")
    options = made.parse_args()
    prepare(options)
    before = machine()
    with tempfile.TemporaryDirectory() as name, warm_server() as server:
        folder = Path(name)

        def start(kind: str, environment: dict[str, str]) -> float:
            return timed(lambda: run([sys.executable, str(folder / f"{kind}.py")], folder / "log", environment))

        sides = {}
        for kind in options.only:
            source = COMMAND.format(scripts=str(ROOT / "scripts"), modules=IMPORTS[kind])
            (folder / f"{kind}.py").write_text(source)
            sides[kind, "cold"] = lambda kind=kind: start(kind, {"UNTAXED_WARM": ""})
            sides[kind, "warm"] = lambda kind=kind: start(kind, server["environment"])
        seconds = alternate(sides, options.repeats, warm_up=True)
        if "no warm start" in (folder / "log").read_text():
            raise SystemExit(f"error: the server refused the command: {(folder / 'log').read_text()}")
    jobs, rows = {}, []
    for kind in options.only:
        cold, warm = summary(seconds[kind, "cold"]), summary(seconds[kind, "warm"])
        jobs[kind] = {"cold_seconds": cold, "warm_seconds": warm, "ratio": cold["median"] / warm["median"]}
        rows.append([kind, spread(cold), spread(warm), jobs[kind]["ratio"]])
    record = {"repeats": options.repeats, "jobs": jobs, "server": {key: server[key] for key in ("seconds", "memory_mib")}}
    text = table(["imports of", "alone, seconds", "warm server, seconds", "ratio"], rows) + (
        f"\nMedians of {options.repeats} (least to most), in turns, files in the page cache. "
        f"The server itself: {server['seconds']:.1f} s until it answers, {server['memory_mib']:.0f} MiB.\n"
    )
    report(options, "bench_warm", "The start of a job", before, record, text)


if __name__ == "__main__":
    os.environ.pop("UNTAXED_WARM", None)
    main()
