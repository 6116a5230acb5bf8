"""Look up revision, size, sha256 and rows of unverified assets on the hub and write them into assets.lock.yaml.

    python scripts/lock_assets.py r1-act directrefusal        (no id: every unverified asset)

Needs the network, and HF_TOKEN for gated assets. What it wrote is to be read and committed: from then on those bytes are the asset.
"""

import argparse
import os
import sys
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    from untaxed.assets import find, load_lock, resolve, rewrite
    from untaxed.records import UserError, read_yaml, write_text

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", nargs="*", help="ids in the lock")
    parser.add_argument("--lock", default="assets.lock.yaml")
    options = parser.parse_args(arguments)
    lock = load_lock(options.lock)
    chosen = [find(lock, name) for name in options.assets] or [asset for asset in lock.values() if asset.unverified]
    failed = []
    for asset in chosen:
        if not asset.unverified:
            print(f"{asset.id}: already verified")
            continue
        try:
            resolved = resolve(asset, os.environ)
        except UserError as error:
            failed.append(asset.id)
            print(f"error: {error}", file=sys.stderr)
            continue
        entry = read_yaml(options.lock)["assets"][asset.id]
        write_text(options.lock, rewrite(Path(options.lock).read_text(encoding="utf-8"), resolved, entry))
        for source in resolved.sources:
            differs = source.seen and not source.revision.startswith(source.seen)
            print(f"{asset.id}: {source}, {len(resolved.files)} files" + (f"; a page stated revision {source.seen}" if differs else ""))
    if failed:
        raise UserError(f"not resolved: {', '.join(failed)}; the reasons stand above")


if __name__ == "__main__":
    run_command(main, network=True)
