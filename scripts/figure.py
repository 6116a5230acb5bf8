"""Draw one figure of a study as PDF and PNG, with a JSON sidecar that holds its data, its runs and the command.

python scripts/figure.py --spec '{"figure": "shift_tax", "title": "Shift and tax"}' --metrics metrics.csv --items items.parquet \
    --study laptop --output-prefix paper_figures/laptop/shift_tax
"""

import argparse
import json
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--spec", required=True, type=json.loads, help='JSON: {"figure": kind, "title", "caption", and the options of that kind}'
    )
    parser.add_argument("--metrics", nargs="?", help="metrics.csv; none for a kind that reads reports alone")
    parser.add_argument("--items", nargs="?", help="items.parquet")
    parser.add_argument(
        "--refine-report", nargs="*", default=[], help="report of each refinement, in a folder <dataset>/<model>/<refinement>"
    )
    parser.add_argument(
        "--runs-file", nargs="?", help="a text file with one run folder a line: whose data was refined, and how the loss fell"
    )
    parser.add_argument("--agreement", nargs="*", default=[], help="agreement.json of each judge")
    parser.add_argument("--judge-pairs", nargs="*", default=[], help="judge_pairs.json: every two judges on the same samples")
    parser.add_argument("--filter-report", nargs="*", default=[], help="report of each filtered dataset, in a folder <dataset>")
    parser.add_argument("--reported", help="reported.yaml: the numbers that the papers print")
    parser.add_argument("--study", required=True, help="name of the study")
    parser.add_argument("--output-prefix", required=True, help="path of the outputs without .pdf, .png, .json")
    options = parser.parse_args(arguments)

    from untaxed.figures import Inputs, draw
    from untaxed.metrics import nothing_measured, read_refine_reports, read_results, read_run_folders
    from untaxed.records import read_json
    from untaxed.reported import read_reported

    results = read_results(options.metrics, options.items) if options.metrics else nothing_measured()
    folders = read_run_folders(options.runs_file) if options.runs_file else []
    refined = read_refine_reports(options.refine_report, folders)
    reads_losses = options.spec.get("figure") == "training_curve"
    paths = [folder / "checkpoint" / "manifest.json" for folder in folders if reads_losses]
    manifests = [read_json(path) for path in paths if path.is_file()]
    pairs = [pair for path in options.judge_pairs for pair in read_json(path)]
    inputs = Inputs(
        options.spec,
        results,
        refined,
        manifests,
        agreements=[read_json(path) for path in options.agreement],
        filter_reports=[read_json(path) | {"name": Path(path).parent.name} for path in options.filter_report],
        judge_pairs=pairs,
        reported=read_reported(options.reported) if options.reported else {},
    )
    draw(inputs, options.study, options.output_prefix, ["python", "scripts/figure.py", *arguments])


if __name__ == "__main__":
    run_command(main)
