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
    parser.add_argument("--metrics", nargs="?", help="metrics.csv; none for a kind that reads reports alone")
    parser.add_argument("--items", nargs="?", help="items.parquet")
    parser.add_argument(
        "--refine-report", nargs="*", default=[], help="report of each refinement, in a folder <dataset>/<model>/<refinement>"
    )
    parser.add_argument("--runs-file", nargs="?", help="a text file with one run folder a line: whose data was refined")
    parser.add_argument("--agreement", nargs="*", default=[], help="agreement.json of each judge")
    parser.add_argument("--judge-pairs", nargs="*", default=[], help="judge_pairs.json: every two judges on the same samples")
    parser.add_argument("--dataset-report", nargs="*", default=[], help="report of each dataset, in a folder <dataset>")
    parser.add_argument(
        "--distil-report", nargs="*", default=[], help="report of each dataset that a teacher answered, in a folder <dataset>"
    )
    parser.add_argument("--filter-report", nargs="*", default=[], help="report of each filtered dataset, in a folder <dataset>")
    parser.add_argument("--lengths", nargs="*", default=[], help="lengths of the responses of each dataset, in tokens")
    parser.add_argument("--reported", help="reported.yaml: the numbers that the papers print")
    parser.add_argument("--output-prefix", required=True, help="path of the outputs without .csv, .md, .html")
    options = parser.parse_args(arguments)

    from untaxed.figures import Inputs
    from untaxed.metrics import nothing_measured, read_refine_reports, read_results, read_run_folders
    from untaxed.records import read_json
    from untaxed.reported import read_reported
    from untaxed.tables import harmful_of, write_table

    prepared, distilled, filtered = (
        {Path(path).parent.name: read_json(path) for path in paths}
        for paths in (options.dataset_report, options.distil_report, options.filter_report)
    )
    for name in set(prepared) & set(distilled):  # the responses of a taught set are its teacher's
        report = distilled[name]
        prepared[name] |= {
            "taught": report["rows_out"],
            "harmful": harmful_of(prepared[name], report),
            "response_characters": report.get("response_characters", {}),
        }
    inputs = Inputs(
        options.spec,
        read_results(options.metrics, options.items) if options.metrics else nothing_measured(),
        refine_reports=read_refine_reports(options.refine_report, read_run_folders(options.runs_file) if options.runs_file else []),
        agreements=[read_json(path) for path in options.agreement],
        dataset_reports=[report | {"name": name} for name, report in prepared.items()],
        filter_reports=[report | {"name": name} for name, report in filtered.items()],
        judge_pairs=[pair for path in options.judge_pairs for pair in read_json(path)],
        reported=read_reported(options.reported) if options.reported else {},
        lengths=[read_json(path) for path in options.lengths],
    )
    write_table(inputs, *(f"{options.output_prefix}.{form}" for form in ("csv", "md", "html")))


if __name__ == "__main__":
    run_command(main)
