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
    parser.add_argument("--metrics", required=True, help="metrics.csv")
    parser.add_argument("--items", required=True, help="items.parquet")
    parser.add_argument(
        "--refine-report", nargs="*", default=[], help="report of each refinement, in a folder <dataset>/<model>/<refinement>"
    )
    parser.add_argument("--runs-file", help="a text file with one run folder a line, whose training manifests a training curve reads")
    parser.add_argument("--agreement", nargs="*", default=[], help="agreement.json of each judge")
    parser.add_argument("--study", required=True, help="name of the study")
    parser.add_argument("--output-prefix", required=True, help="path of the outputs without .pdf, .png, .json")
    options = parser.parse_args(arguments)

    from untaxed.figures import Inputs, draw
    from untaxed.metrics import read_results, read_run_folders
    from untaxed.records import read_json

    results = read_results(options.metrics, options.items)
    refined = [read_json(path) | {"name": " / ".join(Path(path).parent.parts[-3:])} for path in options.refine_report]
    reads_losses = options.runs_file and options.spec.get("figure") == "training_curve"
    folders = read_run_folders(options.runs_file) if reads_losses else []
    paths = [folder / "checkpoint" / "manifest.json" for folder in folders]
    manifests = [read_json(path) for path in paths if path.is_file()]
    inputs = Inputs(options.spec, results, refined, manifests, [read_json(path) for path in options.agreement])
    draw(inputs, options.study, options.output_prefix, ["python", "scripts/figure.py", *arguments])


if __name__ == "__main__":
    run_command(main)
