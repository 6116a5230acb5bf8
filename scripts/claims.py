"""Judge every claim of the papers by what a study measured: supported, contradicted, inconclusive or not run.

python scripts/claims.py --claims claims.yaml --metrics metrics.csv --items items.parquet --study laptop \
    --output claims.json --markdown claims.md --csv claims.csv --page claims.html
"""

import argparse
import shlex
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--claims", required=True, help="claims.yaml")
    parser.add_argument("--only", nargs="*", default=[], help="ids of the claims to judge; all when none or `all` is named")
    parser.add_argument("--metrics", required=True, help="metrics.csv")
    parser.add_argument("--items", required=True, help="items.parquet")
    parser.add_argument("--filter-report", nargs="*", default=[], help="report of each filtered dataset, in a folder <dataset>")
    parser.add_argument("--figures", nargs="*", help="figures that the study draws; all that claims name without this")
    parser.add_argument("--tables", nargs="*", help="tables that the study writes; all that claims name without this")
    parser.add_argument("--stand-in", action="store_true", help="models and data of the study only stand in for the papers'")
    parser.add_argument("--study", required=True, help="name of the study")
    parser.add_argument("--output", required=True, help="verdicts, JSON")
    parser.add_argument("--markdown", required=True, help="verdicts, Markdown")
    parser.add_argument("--csv", required=True, help="verdicts, CSV")
    parser.add_argument("--page", required=True, help="verdicts, an HTML page")
    options = parser.parse_args(arguments)

    from untaxed.claims import counts, html_page, judge_claims, markdown, read_claims, write_csv
    from untaxed.costs import minutes, seconds_behind, stages_of
    from untaxed.metrics import read_results
    from untaxed.records import UserError, read_json, write_json, write_text

    content = read_claims(options.claims)
    wanted = set(options.only) - {"all"}
    if unknown := sorted(wanted - {claim["id"] for claim in content["claims"]}):
        raise UserError(f"{options.claims}: no claim is called {unknown[0]!r}; name ids of that file or `all`")
    if wanted:
        content["claims"] = [claim for claim in content["claims"] if claim["id"] in wanted]
    reports = [read_json(path) | {"name": Path(path).parent.name} for path in options.filter_report]
    made = {"figure": options.figures, "table": options.tables}
    made = None if None in made.values() else made
    records = judge_claims(content, read_results(options.metrics, options.items), reports, made, options.study, options.stand_in)
    folder = Path(options.output).parent
    costs = {record["id"]: minutes(seconds_behind(folder, record["runs"], stages_of(folder, record["bases"]))) for record in records}
    command = shlex.join(["python", "scripts/claims.py", *arguments])
    write_json(options.output, {"study": options.study, "command": command, "counts": counts(records), "claims": records})
    write_text(options.markdown, markdown(records, options.study, costs))
    write_csv(options.csv, records)
    write_text(options.page, html_page(records, options.study, costs))


if __name__ == "__main__":
    run_command(main)
