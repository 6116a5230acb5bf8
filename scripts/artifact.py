"""Write the generated blocks of docs/ARTIFACT.md: claims beside commands, costs and tolerances; costs of all results; servers; licences.

python scripts/artifact.py
"""

import argparse
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", default="docs/ARTIFACT.md", type=Path, help="the page, with the markers of its blocks")
    parser.add_argument("--claims", default="claims.yaml", help="the claims")
    parser.add_argument("--lock", default="assets.lock.yaml", help="where the licences stand")
    options = parser.parse_args(arguments)

    from untaxed.artifact import bills_table, claims_table, costs_table, fill, licence_table
    from untaxed.assets import load_lock
    from untaxed.budget import budget
    from untaxed.claims import read_claims
    from untaxed.config import in_order, read
    from untaxed.records import write_text

    study = read(in_order([]))
    found = budget(study, prepared=False)
    blocks = {
        "claims": claims_table(read_claims(options.claims)["claims"], study, found),
        "costs": costs_table(found),
        "servers": bills_table(found),
        "licences": licence_table(load_lock(options.lock)),
    }
    write_text(options.page, fill(options.page.read_text(encoding="utf-8"), blocks, str(options.page)))


if __name__ == "__main__":
    run_command(main)
