"""Write one table of a study as CSV, Markdown and an HTML page.

python scripts/table.py --spec '{"table": "main_results", "title": "Main results"}' --metrics metrics.csv --items items.parquet \
    --agreement agreement.json --output-prefix results/laptop/tables/main_results
"""

import argparse
import json
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", required=True, type=json.loads, help='JSON: {"table": kind, "title", "caption", and options}')
    parser.add_argument("--metrics", required=True, help="metrics.csv")
    parser.add_argument("--items", required=True, help="items.parquet")
    parser.add_argument(
        "--refine-report", nargs="*", default=[], help="report of each refinement, in a folder <dataset>/<model>/<refinement>"
    )
    parser.add_argument("--runs-file", help="a text file with one run folder a line: whose data was refined")
    parser.add_argument("--agreement", nargs="*", default=[], help="agreement.json of each judge")
    parser.add_argument("--judge-pairs", nargs="*", default=[], help="judge_pairs.json: every two judges on the same samples")
    parser.add_argument("--dataset-report", nargs="*", default=[], help="report of each dataset, in a folder <dataset>")
    parser.add_argument(
        "--distil-report", nargs="*", default=[], help="report of each dataset that a teacher answered, in a folder <dataset>"
    )
    parser.add_argument("--output-prefix", required=True, help="path of the outputs without .csv, .md, .html")
    options = parser.parse_args(arguments)

    from untaxed.figures import Inputs
    from untaxed.metrics import read_refine_reports, read_results, read_run_folders
    from untaxed.records import read_json
    from untaxed.tables import write_table

    folders = read_run_folders(options.runs_file) if options.runs_file else []
    refined = read_refine_reports(options.refine_report, folders)
    agreements = [read_json(path) for path in options.agreement]
    results = read_results(options.metrics, options.items)
    taught = {Path(path).parent.name: read_json(path)["rows_out"] for path in options.distil_report}
    names = {path: Path(path).parent.name for path in options.dataset_report}
    datasets = [read_json(path) | {"name": name} | ({"taught": taught[name]} if name in taught else {}) for path, name in names.items()]
    pairs = [pair for path in options.judge_pairs for pair in read_json(path)]
    inputs = Inputs(options.spec, results, refine_reports=refined, agreements=agreements, dataset_reports=datasets, judge_pairs=pairs)
    write_table(inputs, *(f"{options.output_prefix}.{form}" for form in ("csv", "md", "html")))


if __name__ == "__main__":
    run_command(main)
