"""What Snakemake itself costs per job, with and without the limiter of `--max-jobs-per-timespan` that rules/fetch.smk takes away.

    python perf/bench_scheduler.py --jobs 300 1200

A workflow of jobs that sleep 50 ms on two cores; CPU seconds of Snakemake and its shells, from the kernel.
"""

import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

from measure import alternate, machine, parser, prepare, report, run, spread, summary, table

SNAKEFILE = """
onstart:
    if not {limited}:
        workflow.scheduler.job_rate_limiter = None

rule all:
    input: expand("out/{{number}}", number=range({jobs}))

rule job:
    output: "out/{{number}}"
    shell: "sleep 0.05; touch {{output}}"
"""


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--jobs", type=int, nargs="+", default=[300, 1200])
    options = made.parse_args()
    prepare(options)
    before, record, rows = machine(), {}, []
    for jobs in options.jobs:

        def spent(limited: bool, jobs: int = jobs) -> float:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                (folder / "Snakefile").write_text(SNAKEFILE.format(limited=limited, jobs=jobs))
                start = resource.getrusage(resource.RUSAGE_CHILDREN)
                place = ["--directory", name, "--snakefile", str(folder / "Snakefile")]
                run([sys.executable, "-m", "snakemake", "-c2", "--scheduler", "greedy", *place], folder / "log")
                end = resource.getrusage(resource.RUSAGE_CHILDREN)
                shutil.rmtree(folder / ".snakemake", ignore_errors=True)
                return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime

        seconds = alternate({"limited": lambda: spent(True), "ours": lambda: spent(False)}, options.repeats)
        sides = {name: summary(values) for name, values in seconds.items()}
        ratio = sides["limited"]["median"] / sides["ours"]["median"]
        record[str(jobs)] = sides | {"ratio": ratio}
        rows.append([str(jobs), spread(sides["limited"]), spread(sides["ours"]), ratio])
    text = table(["jobs", "as Snakemake comes, CPU seconds", "without the limiter, CPU seconds", "ratio"], rows)
    text += f"\nMedians of {options.repeats} (least to most), in turns.\n"
    report(options, "bench_scheduler", "Snakemake's own work", before, {"repeats": options.repeats, "jobs": record}, text)


if __name__ == "__main__":
    os.environ.pop("UNTAXED_WARM", None)
    main()
