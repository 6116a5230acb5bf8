"""Write CLAIMS.md: the verdicts of the studies that were run, with interval, n, cost, figure, command, commit and date.

python scripts/verdicts.py --results results/laptop results/organism --output CLAIMS.md
"""

import argparse
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", required=True, nargs="+", type=Path, help="results folders of studies")
    parser.add_argument("--claims", default="claims.yaml", help="all claims, to name those that no study judged")
    parser.add_argument("--output", default="CLAIMS.md", help="the page")
    options = parser.parse_args(arguments)

    from untaxed.artifact import verdict_page
    from untaxed.claims import read_claims
    from untaxed.records import write_text

    write_text(options.output, verdict_page(options.results, read_claims(options.claims)["claims"]))


if __name__ == "__main__":
    run_command(main)
