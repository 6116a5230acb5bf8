"""From a point of a figure to the samples behind it, and from one generation back to its origin, as lines for a reader.

Files are read line by line, and no further than is asked. Texts (prompts, generations, what a judge quotes) are in the lines only with
`show_text`; else there are ids, counts and lengths.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from untaxed.judges import VERDICTS
from untaxed.metrics import fields_by_run, item_of, read_metrics, run_fields, run_values
from untaxed.records import UserError, nearest, read_json, read_jsonl, read_yaml

WARNING = "warning: prompts and generations follow. They may be harmful: keep them out of logs, issues and papers."
NAMES = ("kind", "refined", "piece", "dataset", "series", "method", "run", "model", "recipe", "source", "benign", "trainer", "n")
NAMES += (
    "learning_rate",
    "pattern",
    "when",
    "pieces",
    "filters",
    "fallback",
    "column",
    "benchmark",
    "benchmarks",
    "metric",
    "axis",
    "judge",
    "judge_a",
    "judge_b",
)  # what says which point of a figure it is
SETTINGS = ("model", "recipe", "source", "method", "benign", "trainer", "n", "learning_rate")  # those that are fields of its runs as well
SHARES = ("truncated", "empty")  # what else a bar says of its runs
FEW = 8  # names in an error line


@dataclass(frozen=True)
class Filters:
    """Which samples are listed: of these benchmarks (all if empty), with this verdict of any judge, correct or not, in runs whose id
    holds `run`; at most `limit` a run, or all where it is 0.
    """

    benchmarks: tuple[str, ...] = ()
    verdict: str | None = None
    correct: bool | None = None
    run: str = ""
    limit: int = 10

    def __post_init__(self) -> None:
        """Raises UserError for a verdict that no judge gives."""
        if self.verdict is not None and self.verdict not in VERDICTS:
            raise UserError(f"--verdict: no verdict is called {self.verdict!r}; {nearest(self.verdict, VERDICTS)}")

    def keep(self, sample: Mapping[str, Any]) -> bool:
        return (
            (not self.benchmarks or sample["benchmark"] in self.benchmarks)
            and (self.verdict is None or any(record["verdict"] == self.verdict for record in sample["verdicts"].values()))
            and (self.correct is None or (sample["correct"] is not None and (sample["correct"] == 1) == self.correct))
        )


# ---- places ---------------------------------------------------------------------------------------------------------------------------


def results_folder(study: str) -> Path:
    """The folder of a study's results, from its name or that folder. Raises UserError where there are no runs in it."""
    folder = Path(study) if "/" in study else Path("results", study)
    if (folder / "runs").is_dir():
        return folder
    if folder.is_dir() or Path("studies", f"{study}.yaml").is_file():
        raise UserError(f"study {folder.name!r} has no runs yet; make them with: ./untaxed {folder.name}")
    known = {path.parent.name for path in folder.parent.glob("*/runs")} | {path.stem for path in Path("studies").glob("*.yaml")}
    raise UserError(f"no study is called {study!r}; {nearest(study, known, FEW)}")


def run_folder(results: Path, run: str) -> Path:
    """The folder of a run. Raises UserError with the nearest name where there is none."""
    folder = results / "runs" / run
    if not (folder / "run.yaml").is_file():
        known = [path.parent.name for path in results.glob("runs/*/run.yaml")]
        raise UserError(f"study {results.name!r} has no run {run!r}; {nearest(run, known, FEW)}")
    return folder


def model_manifest(results: Path, model: str) -> Path:
    """The manifest of a model's weights: of its reasoning stage where it was trained here, else of the model folder."""
    stage = results / "runs" / f"reasoning--{model}"
    return (stage / "checkpoint" if stage.is_dir() else results / "models" / model) / "manifest.json"


def read_sidecar(path: Path) -> dict[str, Any]:
    """The JSON beside a figure. Raises UserError when there is none, or when the file is not one."""
    if not path.is_file():
        drawn = sorted(other.name for other in path.parent.glob("*.json"))
        if not drawn:
            raise UserError(f"{path}: no figure is drawn there yet; make them with: ./untaxed {path.parent.name} figures")
        raise UserError(f"{path}: no such figure; {nearest(path.name, drawn, FEW)}")
    sidecar = read_json(path)
    if not isinstance(sidecar, dict) or not {"data", "runs", "study"} <= set(sidecar):
        raise UserError(f"{path}: not the JSON of a figure; name one of paper_figures/<study>/")
    return sidecar


# ---- points of a figure ---------------------------------------------------------------------------------------------------------------


def values_of(point: Mapping[str, Any]) -> list[tuple[str, float, float | None, float | None]]:
    """(name, value, lower end, upper end) of everything that a record of a sidecar measures; the ends may be None."""
    if point.get("loss"):
        return [("training_loss", point["loss"][-1], None, None)]
    if "value" in point:
        name = point.get("metric") or point.get("axis") or point.get("kind", "value")
        return [(name, point["value"], point.get("ci_low"), point.get("ci_high"))]
    measured = [key for key, value in point.items() if isinstance(value, float) and key not in (*NAMES, *SHARES)]
    return [(key, point[key], *(point.get(f"{key}_ci") or (None, None))) for key in measured]


def _values_text(point: Mapping[str, Any]) -> str:
    texts = []
    for name, value, low, high in values_of(point):
        ends = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
        texts.append(("" if name in (point.get("metric"), point.get("axis"), point.get("kind")) else f"{name} ") + f"{value:.3f}{ends}")
    return ", ".join(texts) or "–"


def _names(point: Mapping[str, Any]) -> dict[str, str]:
    """What a record says of which point it is. Where it has no method, its `n` counts rows or labels, not safety samples."""
    return {key: _cell(point.get(key) if key != "n" or "method" in point else None) for key in NAMES}


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else "" if value is None else str(value)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def list_points(path: Path) -> Iterator[str]:
    """The points of a figure's sidecar, numbered: what tells them apart, values with intervals, items and runs."""
    sidecar = read_sidecar(path)
    points = sidecar["data"]
    yield f"{sidecar.get('title') or path.stem} (study {sidecar['study']}, commit {sidecar.get('commit', 'unknown')})"
    names = [_names(point) for point in points]
    texts = {key: [each[key] for each in names] for key in NAMES}
    columns = [key for key in NAMES if len(set(texts[key])) > 1]
    if same := [f"{key} {texts[key][0]}" for key in NAMES if len(set(texts[key])) == 1 and texts[key][0]]:
        yield f"all points: {', '.join(same)}"
    rows = [["#", *columns, "value [95 % interval]", "items", "runs"]]
    for number, point in enumerate(points, start=1):
        items = point.get("n_items", None if "method" in point else point.get("n"))
        counts = [items, point.get("seeds") or point.get("runs") or (1 if "run" in point else None)]
        rows.append([str(number), *(texts[key][number - 1] for key in columns), _values_text(point), *map(_cell, counts)])
    yield from _table(rows)
    yield f"the runs and samples behind a point: ./untaxed inspect {path} <#>"


def runs_of_point(point: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Those of a figure's runs (their fields by id) that a record of its sidecar was drawn from, as its own fields select them.

    A correlation or a gap stands on all runs of its panel. The base model of a curve or a bar bears the names of its panel, not its own.
    """
    if "run" in point:
        return [run for run in runs if run == point["run"]]
    if point.get("method") == "none" or ("method" in point and point.get("n") == 0):
        return [
            run for run, fields in runs.items() if fields["method"] == "none" and fields["model"] == point.get("model", fields["model"])
        ]
    words = [] if "column" in point else str(point.get("series", "")).split(", ")[1:]  # such a point has its runs' own fields
    return [run for run, fields in runs.items() if all(_fits(point, key, fields) for key in SETTINGS) and _named(words, fields)]


def _fits(point: Mapping[str, Any], key: str, fields: Mapping[str, Any]) -> bool:
    if key not in point or (key == "n" and "method" not in point):
        return True
    return point[key] == (bool(fields[key]) if isinstance(point[key], bool) else fields[key])


def _named(words: Sequence[str], fields: Mapping[str, Any]) -> bool:
    """Whether a run bears what follows the method in the name of a series: `n 10`, a trainer, a recipe."""
    return all(word in (f"n {fields['n']}", fields["trainer"], fields["recipe"]) for word in words)


def _refined_as(results: Path, run: str) -> str:
    spec = read_yaml(run_folder(results, run) / "run.yaml")
    return " / ".join(str(spec.get(key)) for key in ("dataset", "model", "refinement"))


def inspect_point(path: Path, number: int, filters: Filters, show_text: bool = False) -> Iterator[str]:
    """The runs behind a point of a figure with the value of each, and their samples on the benchmarks that it measures.

    Raises UserError when there is no such point, when no run stands behind it, and when the runs are not there.
    """
    sidecar = read_sidecar(path)
    points = sidecar["data"]
    if not 1 <= number <= len(points):
        raise UserError(f"{path}: no point {number}; it has 1 to {len(points)}, which `./untaxed inspect {path}` lists")
    point = points[number - 1]
    if point.get("kind") == "reported":
        raise UserError(f"{path}: point {number} is the value that the paper reports; no run of this study stands behind it")
    results = path.resolve().parents[2] / "results" / sidecar["study"]
    if "judge_a" in point:
        yield from list_differences(results, point, filters)
        return
    if "kappa" in point:
        place = f"results/{sidecar['study']}/agreement/{point['judge']}.json"
        raise UserError(f"{path}: point {number} compares the judge {point['judge']!r} with people, not runs; see {place}")
    if "pattern" in point:
        place = f"results/{sidecar['study']}/filtered/{point['dataset']}/report.json"
        raise UserError(f"{path}: point {number} counts rows of the dataset {point['dataset']!r}, not runs; see {place}")
    if not (results / "runs").is_dir():
        raise UserError(f"{results}: the runs of this figure are not there; make them with: ./untaxed {sidecar['study']}")
    metrics = read_metrics(results / "metrics.csv")
    known = fields_by_run(metrics)
    drawn = {run: known[run] for run in sidecar["runs"] if run in known}
    runs = runs_of_point(point, drawn)
    if "refined" in point:
        runs = [run for run in runs if _refined_as(results, run) == point["refined"]]
    values, benchmarks, judges = _measured(point, metrics, drawn)
    runs = [run for run in runs if not values or any(run in each for each in values.values())]
    if not runs:
        missing = next((f": metrics.csv lacks {run}" for run in sidecar["runs"] if run not in known), "")
        raise UserError(f"{path}: no run stands behind point {number}{missing}; draw it again with: ./untaxed {sidecar['study']} figures")
    yield f"point {number} of {path}: {', '.join(f'{key} {text}' for key, text in _names(point).items() if text)}: {_values_text(point)}"
    said = point.get("seeds") or point.get("runs")
    if said and said != len(runs):
        yield f"note: it was drawn from {said} runs, but {len(runs)} fit what is said of it; draw the figure again if the results are newer"
    runs = _holding(filters.run, runs)
    judge = f", judged by {', '.join(judges)}" if judges else ""
    yield f"runs: {len(runs)}" + (f"; benchmarks: {', '.join(benchmarks)}{judge}" if benchmarks else "")
    columns = [[f"{values[name][run]:.3f}" if run in values[name] else "–" for run in runs] for name in values]
    yield from _table(list(zip(["run", *runs], *([name, *column] for name, column in zip(values, columns, strict=True)), strict=True)))
    if not values and not filters.run:
        yield "samples: add --run TEXT for those of the runs whose id holds the text"
        return
    chosen = replace(filters, benchmarks=filters.benchmarks or tuple(benchmarks))
    if show_text:
        yield WARNING
    for run in runs:
        yield f"\n{run}"
        yield from list_samples(run_folder(results, run), chosen, show_text)
    yield f"\nwhere one comes from: ./untaxed inspect {sidecar['study']} <run> <benchmark> <id>"


def list_differences(results: Path, point: Mapping[str, Any], filters: Filters) -> Iterator[str]:
    """The samples on which the two judges of a point differ, run by run, with both verdicts; at most `filters.limit` a run."""
    keys = ("metric", "judge_a", "judge_b")
    pairs = read_json(results / "judge_pairs.json")
    pair = next((each for each in pairs if all(each[key] == point[key] for key in keys)), None)
    if pair is None:
        raise UserError(
            f"{results}/judge_pairs.json: it has no such two judges; draw the figure again with: ./untaxed {results.name} figures"
        )
    found: dict[str, list[list[str]]] = {}
    for place in pair["differences"]:
        if filters.run in place["run"] and (not filters.benchmarks or place["benchmark"] in filters.benchmarks):
            rows = [[f"  {name}", place["benchmark"], place["verdict_a"], place["verdict_b"]] for name in place["ids"]]
            found.setdefault(place["run"], []).extend(rows)
    total = sum(len(place["ids"]) for place in pair["differences"])
    both = f"{pair['n_read']} samples that both could read ({pair['n']} judged by both)"
    yield f"{pair['judge_a']} and {pair['judge_b']} differ on {total} of {both}"
    for run, rows in found.items():
        yield f"\n{run}"
        yield from _table([["  id", "benchmark", pair["judge_a"], pair["judge_b"]], *rows[: filters.limit or None]])
        if filters.limit and len(rows) > filters.limit:
            yield "  … more: --limit 0 lists all"
    yield f"\nlook at one: ./untaxed inspect {results.name} <run> <benchmark> <id> --show-text; all: {results.name}/judge_differences.csv"


def _measured(
    point: Mapping[str, Any], metrics: list[dict], drawn: Mapping[str, Any]
) -> tuple[dict[str, dict[str, float]], list[str], list[str]]:
    """Of a point: the values of each metric by run, as its figure measures them (a tax by its accuracy), its benchmarks, and its judges."""
    values: dict[str, dict[str, float]] = {}
    benchmarks, judges = set(), set()
    for name in dict.fromkeys("accuracy" if name == "safety_tax" else name for name, *_ in values_of(point)):
        asked = point.get("benchmarks") or ([point["benchmark"]] if point.get("benchmark") else None)
        parts = [_of_benchmark(metrics, name, drawn, point, [each]) for each in asked] if asked else []
        for judge, shared, found in parts or [_of_benchmark(metrics, name, drawn, point, None)]:
            if found:
                benchmarks |= set(filter(None, shared))
                judges |= {judge} - {""}
        found = [found for *_, found in parts] if asked else [found]
        if whole := set.intersection(*(set(each) for each in found)):
            values[name] = {run: sum(each[run] for each in found) / len(found) for run in drawn if run in whole}
    return values, sorted(benchmarks), sorted(judges)


def _of_benchmark(
    metrics: list[dict], name: str, drawn: Mapping[str, Any], point: Mapping[str, Any], asked: list[str] | None
) -> tuple[str, list[str], dict[str, float]]:
    """`run_values` by the first of a point's judges that judged; the mean of several benchmarks may name several judges."""
    for judge in str(point.get("judge") or "").split(", "):
        told = run_values(metrics, name, drawn, judge or None, asked)
        if told[2]:
            break
    return told


def _holding(part: str, runs: Sequence[str]) -> list[str]:
    if found := [run for run in runs if part in run]:
        return found
    raise UserError(f"--run: none of the runs holds {part!r}; {nearest(part, runs, FEW)}")


# ---- runs and their samples -----------------------------------------------------------------------------------------------------------


def list_runs(results: Path, filters: Filters) -> Iterator[str]:
    """The runs of a study with what has been made of each."""
    for run in _holding(filters.run, sorted(path.parent.name for path in results.glob("runs/*/run.yaml"))):
        folder = results / "runs" / run
        judges = [path.stem for path in sorted((folder / "verdicts").glob("*.jsonl"))]
        made = ["samples"] * (folder / "samples.jsonl").is_file() + [f"verdicts of {judge}" for judge in judges]
        yield f"{run}: {', '.join(made) or 'not evaluated'}"


def read_samples(folder: Path) -> Iterator[dict[str, Any]]:
    """The samples of a run in their order, each with `verdicts`: {judge: its record}; neither file is held.

    Verdicts stand in the order of the samples. Raises UserError when a run has no samples, or a verdict no sample.
    """
    if not (folder / "samples.jsonl").is_file():
        if folder.name.startswith("reasoning--"):
            model = folder.name.removeprefix("reasoning--")
            raise UserError(f"{folder.name}: a reasoning stage, whose model is evaluated as the run base--{model}; inspect that")
        raise UserError(f"{folder.name}: not evaluated yet; ./untaxed {folder.parents[1].name} goes on with the study")
    records = {path.stem: read_jsonl(path) for path in sorted((folder / "verdicts").glob("*.jsonl"))}
    heads = {judge: next(each, None) for judge, each in records.items()}
    for sample in read_jsonl(folder / "samples.jsonl"):
        verdicts = {judge: head for judge, head in heads.items() if head and _place(head) == _place(sample)}
        heads |= {judge: next(records[judge], None) for judge in verdicts}
        yield sample | {"verdicts": verdicts}
    for judge, head in heads.items():
        if head:
            raise UserError(f"{folder}/verdicts/{judge}.jsonl: the verdict on {' '.join(_place(head))} has no sample; judge the run again")


def _place(record: Mapping[str, Any]) -> tuple[str, str]:
    return record["benchmark"], str(record["id"])


def inspect_run(results: Path, run: str, filters: Filters, show_text: bool = False) -> Iterator[str]:
    """The samples of one run."""
    folder = run_folder(results, run)
    if show_text:
        yield WARNING
    yield from list_samples(folder, filters, show_text)
    yield f"where one comes from: ./untaxed inspect {results.name} {run} <benchmark> <id>"


def list_samples(folder: Path, filters: Filters, show_text: bool = False) -> Iterator[str]:
    """A line per sample of a run that the filters keep: id, benchmark, what was found, tokens, characters, how it ended.

    Reads no further than `filters.limit` asks. Raises UserError for a benchmark that the run lacks.
    """
    seen: set[str] = set()
    kept = (sample for sample in read_samples(folder) if not seen.add(sample["benchmark"]) and filters.keep(sample))
    count = 0
    for sample in islice(kept, filters.limit or None):
        count += 1
        yield _sample_line(sample)
        if show_text:
            yield from _texts(sample)
    if count and count == filters.limit and next(kept, None):
        yield "  … more: --limit 0 lists all"
    if not count:
        for benchmark in filters.benchmarks:
            if benchmark not in seen:
                raise UserError(f"{folder.name}: no samples of a benchmark {benchmark!r}; {nearest(benchmark, seen)}")
        yield "  no sample fits the filters"


def _found(sample: Mapping[str, Any]) -> str:
    """What judges or the grader found in a sample."""
    said = [f"{judge}: {record['verdict']}" + _score(record) for judge, record in sample["verdicts"].items()]
    said += [] if sample["correct"] is None else ["correct" if sample["correct"] == 1 else "wrong"]
    return ", ".join(said) or "not judged"


def _score(record: Mapping[str, Any]) -> str:
    return "" if record["score"] is None else f" (score {record['score']:.2f})"


def _ending(sample: Mapping[str, Any]) -> str:
    return ("answered" if sample["answer"].strip() else "no answer") + (", cut off" if sample["finish"] == "length" else "")


def _attack_of(sample: Mapping[str, Any]) -> str:
    return f", attacked by {sample['attack']}" if sample.get("attack") else ""


def _lengths(sample: Mapping[str, Any]) -> str:
    return f"{sample['tokens']} tokens, trace {len(sample['reasoning'])} + answer {len(sample['answer'])} characters"


def _sample_line(sample: Mapping[str, Any]) -> str:
    return (
        f"  {sample['id']!s:<24} {sample['benchmark']:<18} {_found(sample):<32} {_lengths(sample)}, {_ending(sample)}{_attack_of(sample)}"
    )


def _texts(sample: Mapping[str, Any]) -> Iterator[str]:
    """The texts of a sample, indented, without characters that would steer a terminal."""
    attacked = {"original prompt": sample.get("original_prompt"), "attacked prompt": sample["prompt"]}
    texts = (attacked if sample.get("attack") else {"prompt": sample["prompt"]}) | {"generation": sample["generation"]}
    for name, text in (texts | {f"quoted by {judge}": record["raw"] for judge, record in sample["verdicts"].items()}).items():
        yield f"    {name}:"
        for line in str(text).splitlines():
            yield "      " + "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in line.expandtabs())


# ---- where one generation comes from --------------------------------------------------------------------------------------------------


def find_sample(folder: Path, benchmark: str, name: str) -> dict[str, Any]:
    """A sample of a run by its id. Raises UserError for an unknown benchmark or id, and for an id with several draws (`id#k`)."""
    names: dict[str, list[str]] = {}
    for sample in read_samples(folder):
        if _place(sample) == (benchmark, name):
            return sample
        names.setdefault(sample["benchmark"], []).append(str(sample["id"]))
    if benchmark not in names:
        raise UserError(f"{folder.name}: no samples of a benchmark {benchmark!r}; {nearest(benchmark, names)}")
    if draws := [each for each in names[benchmark] if item_of(each) == name]:
        raise UserError(f"{benchmark}: the id {name!r} is ambiguous, it was drawn {len(draws)} times; give one of {', '.join(draws)}")
    raise UserError(f"{benchmark}: no sample {name!r}; {nearest(name, names[benchmark], FEW)}")


def trace(results: Path, run: str, benchmark: str, name: str, show_text: bool = False, limit: int = 10) -> Iterator[str]:
    """Where one generation comes from: prompt, dataset and attack, verdicts, and every training that made its model, down to the first
    weights, with the ids of at most `limit` rows of each (0: all).

    Raises UserError as `run_folder` and `find_sample` do.
    """
    folder = run_folder(results, run)
    sample = find_sample(folder, benchmark, name)
    spec = read_yaml(folder / "run.yaml")
    fields = run_fields(spec, folder / "run.yaml")
    if show_text:
        yield WARNING
    kind = f"{'harmful' if sample['harmful'] else 'harmless'}, category {sample['category']}"
    yield f"prompt      {item_of(name)} ({kind}) of {_origin(results, sample)}"
    yield f"benchmark   {benchmark}, task version {sample.get('version', 'not recorded')}"
    yield from _attack(results, folder, sample)
    yield f"generation  {name}: {_lengths(sample)}, {_ending(sample)}"
    for judge, record in sample["verdicts"].items():
        sees = f"the {record['sees']['prompt']} prompt and the answer" + (" with its trace" if record["sees"]["trace"] else "")
        by = f"{judge} ({record['kind']}, version {record['version']})"
        yield f"verdict     {record['verdict']}{_score(record)}, by {by}, which sees {sees}"
    if sample["correct"] is not None:
        yield f"graded      {'correct' if sample['correct'] == 1 else 'wrong'}"
    told = ", ".join(f"{key} {fields[key]}" for key in ("recipe", "method", "n", "seed"))
    yield f"run         {run}: model {fields['base']}, {told}"
    model = spec["model"]
    for training in _lineage(results, spec):
        yield from _training(results, training, limit)
        model = training["model"]
    manifest = _manifest(model_manifest(results, model))
    source = ", ".join(f"{key} {value}" for key, value in (manifest.get("source") or {}).items())
    yield f"model       {model}, as it came ({source or 'source not recorded'})"
    yield f"  weights   sha256 {manifest.get('weights_sha256', 'not recorded')}"
    yield f"commit      of the samples: {_commit(folder / 'samples.made.json')}; of the study's figures: {_commits(results)}"
    if show_text:
        yield from _texts(sample)


def _origin(results: Path, sample: Mapping[str, Any]) -> str:
    """The dataset that holds a sample's prompt; ids alone may stand in several. The smallest files are read first."""
    name = item_of(str(sample["id"]))
    prompts = (sample["prompt"], sample.get("original_prompt"))
    for path in sorted(results.glob("datasets/*/rows.jsonl"), key=lambda path: path.stat().st_size):
        for row in read_jsonl(path):
            if str(row["id"]) == name and row["prompt"] in prompts:
                return f"dataset {path.parent.name}, source {row['source']} ({path})"
    return f"no dataset under {results}/datasets (they were made again, or deleted)"


def _attack(results: Path, folder: Path, sample: Mapping[str, Any]) -> Iterator[str]:
    """What attacked a sample's prompt, how it went and what it asked; nothing where there was no attack."""
    if not sample.get("attack"):
        return
    # an attack on one model lies with its run, one that asks no model under test is made once for all
    name, place = item_of(str(sample["id"])), Path("attacked", sample["benchmark"], "records.jsonl")
    path = next((path for path in (folder / place, results / place) if path.is_file()), None)
    record = next((record for record in read_jsonl(path) if str(record["id"]) == name), None) if path else None
    lengths = f"original prompt {len(sample['original_prompt'])} characters, attacked prompt {len(sample['prompt'])}"
    if record is None:
        yield f"attack      {sample['attack']}; {lengths}; no record of it under {place.parent} (made again, or deleted)"
        return
    told = [f"{key} {record[key]}" for key in ("technique", "stream", "iteration", "score") if record[key] is not None]
    if record["success"] is not None:
        told += ["no score"] * (record["score"] is None) + ["success" if record["success"] else "no success"]
    yield f"attack      {', '.join([record['attack'], *told])} ({path})"
    yield f"  prompts   {lengths}" + (
        "" if record["attacked"] == sample["prompt"] else "; it was attacked again since, so this run is out of date"
    )
    for key, what in (("requests", "requests "), ("unparseable", "unparsed ")):
        yield f"  {what} " + ", ".join(f"{role} {count}" for role, count in record[key].items())


def _commit(path: Path) -> str:
    """The commit that a checkpoint or a run's samples were made by."""
    return read_json(path)["commit"] if path.is_file() else "not recorded"


def _lineage(results: Path, spec: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The specification of each training that led to a run's weights, the last first; a base run is the model itself."""
    while spec is not None:
        if spec.get("n"):
            yield spec
        stage = results / "runs" / f"reasoning--{spec['model']}" / "run.yaml"
        spec = read_yaml(stage) if stage.is_file() else None


def _manifest(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _training(results: Path, spec: Mapping[str, Any], limit: int) -> Iterator[str]:
    """One training: its checkpoint, base, trainer and training set, of which `limit` rows (0: all) by their ids."""
    folder = results / "runs" / spec["run"]
    manifest = _manifest(folder / "checkpoint" / "manifest.json")
    base = _manifest(model_manifest(results, spec["model"])).get("weights_sha256")
    trainer, seed = spec.get("trainer") or {}, spec.get("seed", 0)
    yield f"checkpoint  {spec['run']}"
    yield f"  weights   sha256 {manifest.get('weights_sha256', 'not recorded: no checkpoint/manifest.json')}"
    yield f"  commit    {_commit(folder / 'checkpoint' / 'made.json')}"
    same = "as it still has" if base == manifest.get("base") else "but it has others now, so this run is out of date"
    yield f"  base      {spec['model']}, weights sha256 {manifest.get('base', 'not recorded')}" + (f", {same}" if base else "")
    told = ("learning_rate", "batch_size") if trainer.get("steps") else ("learning_rate", "epochs", "batch_size")  # steps go before epochs
    settings = ", ".join(f"{key.replace('_', ' ')} {trainer[key]}" for key in told if key in trainer)
    yield f"  trainer   {spec.get('trainer_name')} ({settings}), {manifest.get('steps', '?')} steps, seed {seed}"
    parts = [{"dataset": spec.get("dataset"), "n": spec["n"]}, *spec.get("mix", [])]
    sources: Counter[str] = Counter()
    listed: list[str] = []
    reasons: dict[str, Counter[str]] = {}
    harmful = 0
    for row in read_jsonl(folder / "train.jsonl"):
        sources[row["source"]] += 1
        harmful += bool(row["harmful"])
        if not limit or len(listed) < limit:
            listed.append(_row_line(row))
        for piece, record in (row.get("pieces") or {}).items():
            reasons.setdefault(piece, Counter())[record["reason"]] += 1
    counts = ", ".join(f"{part['n']} of {part['dataset']}" for part in parts)
    told = ", ".join(f"{source} {count}" for source, count in sorted(sources.items()))
    yield f"  rows      {sources.total()}, {harmful} of them harmful: {counts}; sources: {told} ({folder}/train.jsonl)"
    yield from listed
    if len(listed) < sources.total():
        yield f"    … {sources.total() - len(listed)} more: --limit 0 lists all"
    for piece, found in sorted(reasons.items(), reverse=True):
        yield f"  {piece:<9} {_kept_text(found)}"
    if spec.get("refinement"):
        yield from _refinement(results / "refined" / spec["dataset"] / spec["model"] / spec["refinement"] / "report.json")
    for part in parts:
        yield from _dataset(results, str(part["dataset"]))


def _row_line(row: Mapping[str, Any]) -> str:
    """A row of a training set: id, source, and what became of each of its rewrites."""
    told = [f"{piece} {record['reason']}" for piece, record in sorted((row.get("pieces") or {}).items(), reverse=True)]
    return f"    {row['id']!s:<24} " + ", ".join([row["source"], "harmful" if row["harmful"] else "harmless", *told])


def _dataset(results: Path, name: str) -> Iterator[str]:
    """What made the rows of a dataset: the dataset and the filters that they were drawn by, and the teacher that answered."""
    card = results / "cards" / f"{name}.md"
    filtered = results / "filtered" / name / "report.json"
    if report := _manifest(filtered):
        source = report.get("of") or _drawn_from(results, name)
        yield f"  drawn     {name} from {source or 'a dataset that is not recorded'}: {_steps(report)} ({filtered})"
        name = source
    path = results / "distilled" / name / "report.json"
    if report := _manifest(path):
        kept = f"{report['kept']} of {report['rows']} kept, {report['rows_out']} used"
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(report["reasons"].items()) if count)
        yield f"  answers   of {name} are its teacher's: {kept}; reasons: {reasons} ({path})"
        yield f"  teacher   of {name}: {_teacher(results, report, card)}"


def _teacher(results: Path, report: Mapping[str, Any], card: Path) -> str:
    """A teacher, with its weights where this study has them."""
    if not (teacher := report.get("teacher")):
        return "not recorded in this older report" + (f"; {card} tells it" if card.is_file() else "")
    if not (manifest := _manifest(model_manifest(results, teacher))):
        return f"{teacher}, whose weights this study does not have (a server has them, or they were deleted)"
    stage = f", trained here as reasoning--{teacher}" if (results / "runs" / f"reasoning--{teacher}").is_dir() else ""
    return f"{teacher}, weights sha256 {manifest.get('weights_sha256', 'not recorded')}{stage}"


def _steps(report: Mapping[str, Any]) -> str:
    """The filters of a drawn dataset in their order, with the rows before and after each, and the draw."""
    filters = report.get("filters") or [{}] * len(report["steps"])
    steps = []
    for entry, step in zip(filters, report["steps"], strict=True):
        asked = "keep" if entry.get("keep") is not None else "allow"
        rule = f" ({asked}s {', '.join(entry[asked] or ['nothing'])})" if entry.get(asked) is not None else ""
        found = ", ".join(f"{verdict} {count}" for verdict, count in sorted(step["verdicts"].items()))
        steps.append(f"{step['judge']}{rule} lets {step['out']} of {step['in']} pass: {found}")
    drawn = f"{report['rows_out']} of {report['kept']} drawn"
    return "; ".join([*(steps or [f"no filter, {report['rows']} rows"]), drawn])


def _drawn_from(results: Path, name: str) -> str:
    """The dataset that holds all rows of a drawn one, whose older report does not say so; "" where none does."""
    with (results / "filtered" / name / "rows.jsonl").open(encoding="utf-8") as stream:
        drawn = set(stream)
    paths = [path for folder in ("distilled", "datasets") for path in sorted(results.glob(f"{folder}/*/rows.jsonl"))]
    for path in paths:
        with path.open(encoding="utf-8") as stream:
            if len(drawn.intersection(stream)) == len(drawn):
                return path.parent.name
    return ""


def _kept_text(reasons: Mapping[str, int]) -> str:
    """How many rewrites of a piece were kept (reason `ok`), and why the original was kept in place of others."""
    lost = {reason: count for reason, count in reasons.items() if count and reason != "ok"}
    why = f" ({', '.join(f'{reason} {count}' for reason, count in sorted(lost.items()))})" if lost else ""
    return f"{reasons.get('ok', 0)} rewrites kept, {sum(lost.values())} originals{why}"


def _refinement(path: Path) -> Iterator[str]:
    """What became of the whole refined set that a run drew its rows from."""
    if not path.is_file():
        yield f"  refined   no report at {path}"
        return
    report = read_json(path)
    pieces = "; ".join(f"{piece} {_kept_text(reasons)}" for piece, reasons in sorted(report["pieces"].items(), reverse=True))
    yield f"  refined   {report['rows']} rows in all, filters {', '.join(report['filters']) or 'none'}: {pieces} ({path})"


def _commits(results: Path) -> str:
    """The commits that the study's figures record."""
    paths = results.resolve().parents[1].glob(f"paper_figures/{results.name}/*.json")
    commits = sorted({read_json(path).get("commit", "unknown") for path in paths})
    return ", ".join(commits) or "none is drawn yet"
