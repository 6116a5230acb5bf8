"""The pages for those who check the work: claims beside their commands and costs, licences, and the verdicts of the studies that ran."""

import re
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from untaxed.assets import Asset
from untaxed.budget import GIB, MILLION, Budget, total_bill
from untaxed.cards import NOT_COMMERCIAL, hub_licence
from untaxed.claims import LAUNCHED, SHOWN, bases, counts, table
from untaxed.costs import minutes, seconds_behind, stages_of
from untaxed.records import UserError, read_json
from untaxed.study import Study

INTRODUCTION = """\
Written by `python scripts/verdicts.py` from the results of the studies below; not by hand. Brackets hold 95 % intervals, `n` is what they
rest on. `cost` is the time of all jobs of a claim's runs and of the stages that they start from, summed (several run side by side), on the
machine that ran them; claims share runs, so costs do not add up. [docs/ARTIFACT.md](docs/ARTIFACT.md) says how to check a claim."""


# ---- blocks of a page that a command writes -----------------------------------------------------------------------------------


def fill(text: str, blocks: Mapping[str, list[str]], place: str) -> str:
    """The page with the lines of each block between its markers `<!-- begin: name -->` and `<!-- end: name -->`.

    Raises UserError for a block without markers, and for markers without a block.
    """
    marked = re.findall(r"<!-- begin: (\S+) -->", text)
    for name in [*blocks, *marked]:
        if marked.count(name) != 1 or name not in blocks:
            raise UserError(f"{place}: needs the markers of the block {name!r} once, and no others; blocks: {', '.join(blocks)}")
    for name, lines in blocks.items():
        begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
        head, _, rest = text.partition(begin)
        if end not in rest:
            raise UserError(f"{place}: the block {name!r} has no end marker; add {end}")
        text = "\n".join([head + begin, *lines, "", end + rest.partition(end)[2]])
    return text


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _head(*names: str) -> list[str]:
    return [_row(*names), "|" + "---|" * len(names)]


# ---- docs/ARTIFACT.md -----------------------------------------------------------------------------------------------------------


def tolerance(claim: Mapping[str, Any]) -> str:
    """What must hold of a claim's 95 % interval for the verdict `supported`, and when the paper's number counts as met.

    A number that the paper words otherwise than as one figure is only quoted: nothing is compared with it.
    """
    bound, points, reported = claim.get("bound", 0.0), claim["test"] != "correlation", claim.get("reported")
    limit = f"{100 * bound:+g} points" if points and bound else f"{bound:g}"
    side = "above" if claim["direction"] == "greater" else "below"
    compared = isinstance(reported, int | float)
    told = "" if reported is None else f"; the paper's {reported} inside it" if compared else f" (paper: {reported})"
    return f"interval wholly {side} {limit}{told}"


def claims_table(claims: Iterable[Mapping[str, Any]], study: Study, found: Budget) -> list[str]:
    """Every claim, the figure or table that shows it, the command that makes this alone, its cost, and what counts as reproduced."""
    costs = {(result.kind, result.row.name): result for result in found.results}
    lines = _head("claim", "paper", "shown in", "command", f"{found.unit}-hours", "tolerance")
    for claim in claims:
        (shown,) = ((kind, claim[kind]) for kind in SHOWN if kind in claim)
        made = shown in costs
        command = f"`snakemake --profile slurm {shown[1]}`" if made else f"not in {study.name}: see its overlay in studies/"
        hours = f"{costs[shown].row.hours:,.1f}" if made else ""
        lines.append(_row(f"**{claim['id']}** {claim['statement']}", claim["paper"], shown[1], command, hours, tolerance(claim)))
    return lines


def costs_table(found: Budget) -> list[str]:
    """Jobs, device hours and disk of every figure and table, each made alone, and of the whole."""
    lines = _head("figure or table", "experiments", "jobs", f"{found.unit}-hours", "of them shared", "GiB")
    for result in found.results:
        row = result.row
        named = ", ".join(result.experiments) or "all"
        lines.append(
            _row(
                f"{row.name} ({result.kind})",
                named,
                f"{row.jobs:,}",
                f"{row.hours:,.1f}",
                f"{result.shared_hours:,.1f}",
                f"{row.disk / GIB:,.0f}",
            )
        )
    total = found.total
    lines.append(_row("**all**", "all", f"{total.jobs:,}", f"{total.hours:,.1f}", "", f"{total.disk / GIB:,.0f}"))
    return lines


def bills_table(found: Budget) -> list[str]:
    """What is asked of servers on other machines: tokens, price where the configuration states one, and what the caps allow."""
    lines = _head(
        "asked by", "model", "at", "jobs", "M tokens of prompts", "M tokens generated", "USD", "at most, M tokens", "at most, USD"
    )

    def usd(amount: float | None) -> str:
        return "" if amount is None else f"{amount:,.2f}"

    for bill in [*found.bills, total_bill(found.bills)]:
        tokens = f"{bill.prompt / MILLION:,.2f}", f"{bill.generated / MILLION:,.2f}"
        most = f"{bill.most / MILLION:,.1f}", usd(bill.most_usd)
        who = f"`{bill.who}`" if bill.model else "**total**"
        lines.append(_row(who, bill.model, bill.host, f"{bill.jobs:,}", *tokens, usd(bill.usd), *most))
    return lines


def licence_table(lock: Mapping[str, Asset]) -> list[str]:
    """Every asset: what it is for, its licence, and what stands in the way of using it."""
    lines = _head("asset", "for", "licence", "the hub's name", "mind", "citation")
    for asset in lock.values():
        hub, _ = hub_licence(asset.licence)
        flags = {
            "**non-commercial**": NOT_COMMERCIAL.search(f"{asset.licence} {asset.note}"),
            "**no licence known**": hub == "unknown",
            "gated": asset.gated,
            "unverified": asset.unverified,
        }
        lines.append(_row(f"`{asset.id}`", asset.purpose, asset.licence, hub, ", ".join(k for k, v in flags.items() if v), asset.citation))
    return lines


# ---- CLAIMS.md ------------------------------------------------------------------------------------------------------------------


def _commit(results: Path, study: str, figure: str) -> str:
    """The commit that drew a claim's figure, as the figure's sidecar tells; empty where there is none."""
    path = results.parents[1] / "paper_figures" / study / f"{figure}.json"
    return read_json(path)["commit"] if path.is_file() else ""


def verdict_page(folders: Iterable[Path], claims: Iterable[Mapping[str, Any]]) -> str:
    """CLAIMS.md: the verdicts of the studies in some results folders, each with its commit, date, cost and command.

    All of it is read from what the studies left: claims.json, the sidecars of their figures, their benchmark files. Raises UserError
    where a folder has no claims.json, or figures of more than one commit.
    """
    known, judged = {claim["id"] for claim in claims}, set()
    lines = ["# Verdicts on the papers' claims", ""]
    lines += [INTRODUCTION]
    for folder in folders:
        told = read_json(folder / "claims.json")
        study, records = told["study"], told["claims"]
        commits = {_commit(folder, study, record["figure"]) for record in records} - {""}
        if len(commits) != 1:
            raise UserError(
                f"{folder}: figures of {len(commits)} commits; draw them by one commit (snakemake figures), then run this again"
            )
        commit = commits.pop()
        dirty = ", with changes that were not committed" if commit.endswith("-dirty") else ""
        made = date.fromtimestamp((folder / "claims.json").stat().st_mtime).isoformat()
        again = f"./untaxed {study}" if study in LAUNCHED else f"snakemake all -c2 --configfile studies/{study}.yaml"
        costs = {record["id"]: minutes(seconds_behind(folder, record["runs"], stages_of(folder, record["bases"]))) for record in records}
        lines += [
            "",
            f"## The study {study}",
            "",
            f"Commit {commit.removesuffix('-dirty')[:7]}{dirty}; judged on {made}. {counts(records)}.",
        ]
        lines += [bases(records), "", f"Make it again: `{again}`. Judge it again:", "", "```bash", told["command"], "```", ""]
        lines += table(records, study, costs)
        judged |= {record["id"] for record in records}
    if missing := sorted(known - judged):
        lines += ["", f"Claims of `claims.yaml` that came after these studies, and that none of them judges: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"
