"""Fetch one asset of assets.lock.yaml into a folder: its files, checked by sha256, and asset.json that says where they are from.

    python scripts/fetch.py star-1 --output results/assets/star-1

UNTAXED_MIRROR (a folder), HF_ENDPOINT, HF_TOKEN, UNTAXED_GITHUB_RAW and UNTAXED_CACHE choose among and configure the sources.
"""

import argparse
import os

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    from untaxed.assets import fetch, load_lock

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("asset", help="id in the lock")
    parser.add_argument("--lock", default="assets.lock.yaml")
    parser.add_argument("--output", required=True, help="folder to make")
    options = parser.parse_args(arguments)
    source = fetch(options.asset, load_lock(options.lock), options.output, os.environ)
    print(f"{options.asset}: from {source}")


if __name__ == "__main__":
    run_command(main, network=True)
