"""From a point of a figure to the samples behind it, and from a generation back to its origin; ids, counts and lengths, no texts.

./untaxed inspect paper_figures/organism/method_bars.json          the points of a figure
./untaxed inspect paper_figures/organism/method_bars.json 3        the runs behind a point, and their samples
./untaxed inspect paper_figures/laptop/judge_pairs.json 1          the samples on which two judges differ, with both verdicts
./untaxed inspect organism [<run> [<benchmark>]]                   the runs of a study; the samples of one
./untaxed inspect organism <run> <benchmark> <id>                  where one generation comes from
"""

import argparse
import signal
from collections.abc import Iterator
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="./untaxed inspect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("what", metavar="FIGURE.json|STUDY", help="the JSON beside a figure; a study's name, or the folder of its results")
    parser.add_argument("rest", nargs="*", metavar="NUMBER|RUN BENCHMARK ID", help="a point of the figure; a run of the study, and so on")
    parser.add_argument("--benchmark", nargs="+", default=[], help="samples of these benchmarks alone")
    parser.add_argument("--verdict", help="samples with this verdict of a judge, such as refusal, compliance, 'no answer'")
    parser.add_argument("--correct", choices=("yes", "no"), help="samples of reasoning benchmarks that are right, or wrong")
    parser.add_argument("--run", default="", metavar="TEXT", help="runs whose id holds this text, such as s3")
    parser.add_argument("--limit", type=int, default=10, help="samples listed per run, rows per training; 0 for all (default 10)")
    parser.add_argument("--show-text", action="store_true", help="show prompts and generations, which may be harmful")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a traceback
    for line in lines(options):
        print(line)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """What the arguments ask for. Raises UserError where they name nothing."""
    from untaxed import inspection
    from untaxed.records import UserError

    correct = {"yes": True, "no": False}.get(options.correct)
    filters = inspection.Filters(tuple(options.benchmark), options.verdict, correct, options.run, max(0, options.limit))
    if options.what.endswith(".json"):
        match options.rest:
            case []:
                return inspection.list_points(Path(options.what))
            case [number] if number.isdecimal():
                return inspection.inspect_point(Path(options.what), int(number), filters, options.show_text)
        raise UserError(f"after {options.what} comes the number of one point; found {' '.join(options.rest)!r}")
    results = inspection.results_folder(options.what)
    match options.rest:
        case []:
            return inspection.list_runs(results, filters)
        case [run]:
            return inspection.inspect_run(results, run, filters, options.show_text)
        case [run, benchmark]:
            filters = inspection.Filters((benchmark,), filters.verdict, filters.correct, limit=filters.limit)
            return inspection.inspect_run(results, run, filters, options.show_text)
        case [run, benchmark, name]:
            return inspection.trace(results, run, benchmark, name, options.show_text, filters.limit)
    raise UserError(f"after a study come a run, a benchmark and an id; found {len(options.rest)} words")


if __name__ == "__main__":
    run_command(main)
