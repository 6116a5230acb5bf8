"""Cards of training sets, datasets and models in the hub's form: how each was made, what it holds, its licences; no text of a row."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from untaxed.datasets import describe
from untaxed.records import read_json, read_jsonl, read_yaml

if TYPE_CHECKING:
    from untaxed.assets import Asset
    from untaxed.study import Study

OWN = "Apache-2.0"  # this project's licence: what its generators and prompt files write
SERVED = "the provider's terms, unknown here"  # of a model at a server
# The lock's words for a licence, those that allow least first: (pattern, the hub's name for it, how little it allows).
LICENCES = (
    (r"unverified|none|unknown", "unknown", 5),  # without a licence nothing is allowed
    (r"CC-BY-NC(-SA|-ND)?-\d\.\d", None, 4),
    (r"non-?commercial", "other", 4),
    (r"Llama (\d(\.\d)?)", "llama{}", 3),
    (r"Gemma", "gemma", 3),
    (r"Responsible Use|Community|RAIL", "other", 3),
    (r"CC-BY(-SA|-ND)-\d\.\d", None, 2),
    (r"ODC-BY", "odc-by", 1),
    (r"CC-BY-\d\.\d", None, 1),
    (r"Apache", "apache-2.0", 1),
    (r"MIT", "mit", 0),
)
ELSE = ("other", 3)
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M")
RATES = ("accuracy", "safe_rate", "strongreject", "refusal_rate", "harmful_score", "over_refusal")  # the metrics that a card repeats
NOT_COMMERCIAL = re.compile(r"\bNC\b|non-?commercial", re.IGNORECASE)
LANGUAGE = "en"


# ---- where things come from -----------------------------------------------------------------------------------------------------


def origins(study: "Study", run: str) -> dict:
    """What a run is made of, for its cards (see `made_of`)."""
    spec = study.specs[run]
    return made_of(spec, catalogue(study, _sets(spec), [spec["model"]]))


def made_of(spec: Mapping[str, Any], known: Mapping[str, Any]) -> dict:
    """What a run is made of: `rows` (of its training set, and the models that wrote them) and `weights` (of its base), by `catalogue`.

    Each is a list of {part, name, assets, generator}: what it is to the run, a dataset's or model's name, assets of the lock, and the
    generator where there is no asset (null: a model at a server). `teachers` says how the rows of a dataset were distilled.
    """
    sets = _sets(spec)
    rows = [entry for name in sets for entry in known["datasets"][name]["rows"]]
    weights = _as("base model", known["models"][spec["model"]]) if spec["n"] else []
    if spec["n"] and spec["refinement"]:
        rows += _as("model that rewrote the rows", known["models"][spec["model"]])
    teachers = [teacher for name in sets for teacher in known["datasets"][name]["teachers"]]
    return {"rows": _joined(rows), "weights": _joined(weights), "teachers": teachers}


def catalogue(study: "Study", datasets: Iterable[str], models: Iterable[str]) -> dict:
    """What each of some datasets and models is made of."""
    return {
        "datasets": {name: dataset_origins(study, name) for name in datasets},
        "models": {name: _weights(study, name) for name in models},
    }


def _sets(spec: Mapping[str, Any]) -> list[str]:
    """The datasets that a run trains on."""
    return list(dict.fromkeys([spec["dataset"], *(part["dataset"] for part in spec["mix"])])) if spec["n"] else []


def dataset_origins(study: "Study", dataset: str) -> dict:
    """What a dataset is made of: `rows` and `teachers` as in `origins`, and how it was drawn and cleaned."""
    entry, source = study.config.datasets[dataset], study.config.datasets[study.source(dataset)]
    return {
        "rows": _joined(_rows(study, dataset)),
        "teachers": [teacher for teacher in [_teacher(study, dataset)] if teacher],
        "source": study.source(dataset),
        "responses": source.responses,
        "limit": entry.limit,
        "cleaned_against": source.decontaminate_against,
        "filters": [rule.model_dump(exclude_none=True) for rule in entry.filters],
    }


def _rows(study: "Study", dataset: str) -> list[dict]:
    entry = study.config.datasets[study.source(dataset)]
    found = [{"part": "rows", "name": dataset, "assets": entry.assets, "generator": None if entry.assets else entry.adapter}]
    taught: list[dict] = []
    if entry.teacher and entry.teacher.model:
        taught = _weights(study, entry.teacher.model)
    elif entry.teacher:
        taught = [{"part": "weights", "name": entry.teacher.engine.model, "assets": [], "generator": None}]
    return found + _as(f"teacher of {dataset}", taught)


def _as(part: str, model: Iterable[dict]) -> list[dict]:
    """What a model is made of, called after what the model is here."""
    return [{**entry, "part": part if entry["part"] == "weights" else f"behind the {part}"} for entry in model]


def _weights(study: "Study", model: str) -> list[dict]:
    """The weights that a model starts from, and the rows of the stages that made it."""
    entry = study.config.models[model]
    if entry.base is None:
        own = {"part": "weights", "name": model, "assets": [entry.asset] if entry.asset else [], "generator": entry.kind}
        return [own, *(_weights(study, entry.adapter_on) if entry.adapter_on else [])]
    found = _weights(study, entry.base)
    for name in (entry.stage.dataset, *(mixed.dataset for mixed in entry.stage.mix)):
        found += [{**each, "part": "reasoning stage"} for each in _rows(study, name)]
    return found


def _joined(found: Iterable[dict]) -> list[dict]:
    """Each source once, with all that it is to the thing described."""
    joined: dict[str, dict] = {}
    for entry in found:
        known = joined.setdefault(entry["name"], {**entry, "part": []})
        known["part"] = list(dict.fromkeys([*known["part"], entry["part"]]))
    return [{**entry, "part": "; ".join(entry["part"])} for entry in joined.values()]


def _teacher(study: "Study", dataset: str) -> dict | None:
    teacher = study.config.datasets[study.source(dataset)].teacher
    told = teacher and teacher.model_dump(include={"prompt", "delivery", "sampling", "truncated", "seed"})
    return told and {"dataset": dataset, "model": teacher.model or f"{teacher.engine.model} at a server", **told}


# ---- licences -------------------------------------------------------------------------------------------------------------------


def hub_licence(words: str) -> tuple[str, int]:
    """The hub's name of a licence that the lock states, and how little it allows (0 is MIT, 5 is no licence known).

    Where the words name several licences, the one that allows least counts. A licence that is not listed here is `other`.
    """
    for pattern, name, rank in LICENCES:
        if found := re.search(pattern, words, re.IGNORECASE):
            return (name or found[0].lower()).format(*found.groups()), rank
    return ELSE


def licensed(parts: Iterable[Mapping[str, Any]], lock: Mapping[str, "Asset"]) -> list[dict]:
    """Each part with each of its assets and what the lock says of it: licence, hub name, rank, non_commercial, citation, note."""
    found = []
    for part in parts:
        for name in part["assets"] or [None]:
            asset = lock[name] if name else None
            words = asset.licence if asset else OWN if part["generator"] else SERVED
            hub, rank = hub_licence(words)
            found.append(
                {
                    "part": part["part"],
                    "name": part["name"],
                    "asset": name,
                    "from": f"asset `{name}`" if name else f"`{part['generator']}` of this project" if part["generator"] else "a server",
                    "licence": words,
                    "hub": hub,
                    "rank": rank,
                    "non_commercial": bool(asset and NOT_COMMERCIAL.search(f"{words} {asset.note}")),
                    "citation": asset.citation if asset else "",
                    "note": asset.note if asset else "",
                }
            )
    return found


def strictest(found: Sequence[Mapping[str, Any]]) -> str:
    """The hub's name of the licence that allows least; this project's own where nothing comes from outside."""
    return max(found, key=lambda entry: entry["rank"])["hub"] if found else hub_licence(OWN)[0]


def _licence_fields(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The front matter's licence; one that the hub has no name for is named in the lock's words."""
    name = strictest(found)
    words = next((entry["licence"] for entry in found if entry["hub"] == name), "")
    return {"license": name} | ({"license_name": re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-")} if name == "other" else {})


def _licence_section(found: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["## Licences", ""]
    if not found:
        return [*lines, "Nothing here comes from outside."]
    if held := sorted({entry["asset"] for entry in found if entry["non_commercial"]}):
        lines += [f"> **NOT FOR COMMERCIAL USE**, nor is what they made: {', '.join(held)} (non-commercial terms).", ""]
    if unknown := sorted({entry["asset"] or entry["name"] for entry in found if entry["hub"] == "unknown"}):
        lines += [f"> **NO LICENCE IS KNOWN** of {', '.join(unknown)}. Do not pass this on before their authors have been asked.", ""]
    lines += ["| part | name | from | licence | citation |", "|---|---|---|---|---|"]
    for entry in found:
        flag = " **(non-commercial)**" if entry["non_commercial"] else ""
        note = f" ({entry['note']})" if entry["note"] else ""
        lines.append(f"| {entry['part']} | {entry['name']} | {entry['from']}{note} | {entry['licence']}{flag} | {entry['citation']} |")
    return [
        *lines,
        "",
        "The front matter names the one that allows least. Licences are as `assets.lock.yaml` states them; read the originals.",
    ]


def _hub_names(found: Iterable[Mapping[str, Any]], lock: Mapping[str, "Asset"], kind: str) -> list[str]:
    """The hub's ids of the assets that are there as a `kind` (dataset, model)."""
    names = [entry["asset"] for entry in found if entry["asset"]]
    sources = [source for name in names for source in lock[name].sources if source.kind == "hub" and source.repo_type == kind]
    return list(dict.fromkeys(source.name for source in sources))


# ---- text -----------------------------------------------------------------------------------------------------------------------


def _page(data: Any, lines: Iterable[str]) -> str:
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines) + "\n"


def _size(rows: int) -> str:
    return SIZES[min(len(SIZES) - 1, max(0, len(str(rows)) - 3))]


def _dataset_data(name: str, rows: list[dict], found: Sequence[Mapping[str, Any]], lock: Mapping[str, "Asset"], tags: list[str]) -> Any:
    from huggingface_hub.repocard_data import DatasetCardData

    audience = ["not-for-all-audiences"] if any(row["harmful"] for row in rows) else []
    outside = [f"extended|{hub}" for hub in _hub_names(found, lock, "dataset")]
    tables = {entry["asset"] for entry in found if entry["asset"] and lock[entry["asset"]].format != "model"}
    outside += [f"extended|other-{asset}" for asset in sorted(tables) if not _hub_names([{"asset": asset}], lock, "dataset")]
    return DatasetCardData(
        language=[LANGUAGE],
        **_licence_fields(found),
        multilinguality="monolingual",
        size_categories=_size(len(rows)),
        source_datasets=outside or ["original"],
        task_categories=["text-generation"],
        pretty_name=name,
        tags=[*tags, *audience],
    )


def _contents(rows: list[dict]) -> list[str]:
    """Counts of rows by source, their lengths, and what became of rewritten pieces."""
    told = describe(rows, [])
    lines = ["## What it holds", "", f"{told['rows']} rows, {told['harmful']} of them with a harmful prompt."]
    if rows:
        lines += ["", "| source of the rows | rows | harmful |", "|---|---|---|"]
        for source in told["sources"]:
            mine = [row for row in rows if row["source"] == source]
            lines.append(f"| {source} | {len(mine)} | {sum(row['harmful'] for row in mine)} |")
        lines += ["", "| part | words: fewest | mean | most |", "|---|---|---|---|"]
        lines += [f"| {part} | {n['min']} | {n['mean']:.1f} | {n['max']} |" for part, n in told["lengths_in_words"].items()]
    if refined := [row["pieces"] for row in rows if row.get("pieces")]:
        lines += ["", "| rewritten piece | rewrites kept | originals kept | reasons |", "|---|---|---|---|"]
        for piece in sorted({name for pieces in refined for name in pieces}, reverse=True):
            mine = [pieces[piece] for pieces in refined if piece in pieces]
            kept, reasons = Counter(each["kept"] for each in mine), Counter(each["reason"] for each in mine)
            lines.append(f"| {piece} | {kept['rewrite']} | {kept['original']} | {_counted(reasons)} |")
    return [*lines, ""]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]) if count) or "none"


def _teachers(teachers: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each teacher: model, instruction, sampling."""
    lines = []
    for told in teachers:
        sampling = ", ".join(f"{key} {value}" for key, value in told["sampling"].items())
        asked = f"instructed by `{told['prompt']}` ({told['delivery']} turn)" if told["prompt"] else "without an instruction"
        lines.append(f"- {told['dataset']}: traces and answers by {told['model']}, {asked}; {sampling}, seed {told['seed']}")
    return lines


USE = (
    "## Use, and limits",
    "",
    "Made to measure what safety training costs a reasoning model, and for nothing else.",
)
LATER = "Not in this card, which was written when the training ended: the numbers are in the study's metrics.csv."
HARM = "Some prompts ask for harmful things. Keep the rows where only people who work on safety read them; do not show them to users."


def training_set_card(spec: Mapping[str, Any], rows: list[dict], made_of: Mapping[str, Any], lock: Mapping[str, "Asset"]) -> str:
    """The card of a run's training set, a dataset card of the hub: how it was made, what it holds, licences. No text of the rows.

    `spec` is the run (run.yaml), `made_of` what `origins` says of it.
    """
    found = licensed(made_of["rows"], lock)
    made = {"run": spec["run"], "model": spec["model"], "recipe": spec["recipe"], "method": spec["method"], "seed": spec["seed"]}
    if spec["n"]:
        made |= {"safety rows": f"{spec['n']} of the dataset {spec['dataset']}"}
        made |= {"mixed in": ", ".join(f"{part['n']} of {part['dataset']}" for part in spec["mix"])} if spec["mix"] else {}
        made |= {"refinement": _refinement(spec)} if spec["refinement"] else {}
    lines = [f"# Training set of {spec['run']}", "", "## How it was made", "", *(f"- {key}: {value}" for key, value in made.items())]
    lines += [*_teachers(made_of["teachers"]), "", *_contents(rows), *USE]
    lines += [HARM] if any(row["harmful"] for row in rows) else []
    lines += ["One draw by seed: the set of another seed holds other rows.", "", *_licence_section(found), ""]
    lines += ["The rows are in train.jsonl, the full specification in run.yaml."]
    tags = ["untaxed", "safety", "reasoning", spec["method"]]
    return _page(_dataset_data(f"Training set of {spec['run']}", rows, found, lock, tags), lines)


def _refinement(spec: Mapping[str, Any]) -> str:
    """How a refinement asked and chose, in words."""
    settings = spec.get("refinement_settings")
    if not settings:
        return spec["refinement"]
    prompts = ", ".join(f"`{settings['prompts'][piece]}` for the {piece}" for piece in settings["pieces"])
    sampling = ", ".join(f"{key} {value}" for key, value in settings["sampling"].items())
    kept = {"original": "the original is kept", "drop": "the row is dropped"}[settings["fallback"]]
    filters = ", ".join(settings["filters"]) or "none"
    return f"{spec['refinement']}: rewritten by {spec['model']} with {prompts}; {sampling}; filters {filters}; of a rejected rewrite {kept}"


def dataset_card(name: str, rows: list[dict], made_of: Mapping[str, Any], lock: Mapping[str, "Asset"], results: Path) -> str:
    """The card of a dataset of a study, with what the reports of its rules (under `results`) count."""
    found = licensed(made_of["rows"], lock)
    lines = [f"# {name}", "", "## How it was made", ""]
    for entry in made_of["rows"]:
        lines.append(f"- {entry['part']}: {', '.join(entry['assets']) or 'made by the generator ' + str(entry['generator'])}")
    lines += [f"- answers: `prompts/{made_of['responses']}.yaml`"] if made_of["responses"] else []
    lines += [f"- drawn from: {made_of['source']}"] if made_of["source"] != name else []
    lines += [*_teachers(made_of["teachers"]), *_reported(name, made_of, results), "", *_contents(rows), *USE]
    lines += [HARM] if any(row["harmful"] for row in rows) else []
    lines += ["", *_licence_section(found)]
    return _page(_dataset_data(name, rows, found, lock, ["untaxed", "safety", "reasoning"]), lines)


def _reported(name: str, made_of: Mapping[str, Any], results: Path) -> list[str]:
    """What the reports of the rules that made a dataset count, one line each; a report that is absent says nothing."""

    def report(*parts: str) -> dict:
        path = results.joinpath(*parts, "report.json")
        return read_json(path) if path.is_file() else {}

    lines, source = [], made_of["source"]
    if removed := report("datasets", source).get("removed"):
        against = ", ".join(made_of["cleaned_against"])
        lines += [f"- cleaned against {against}: {removed['count']} rows removed"] if against else []
    if told := report("distilled", source):
        version = f", instruction version {told['prompt_version']}" if told.get("prompt_version") else ""
        counts = f"{told['rows']} prompts asked, {told['kept']} answers usable, {told['rows_out']} rows kept"
        lines.append(f"- distilled: {counts} ({_counted(told['reasons'])}){version}")
    if told := report("filtered", name):
        for step in told["steps"]:
            kept = f"{step['in']} rows in, {step['out']} left"
            lines.append(f"- filtered by {step['judge']}: {kept} ({_counted(step['verdicts'])})")
        lines.append(f"- {told['rows_out']} of the {told['kept']} rows left were drawn")
    for path in sorted(results.glob(f"refined/{name}/*/*/report.json")):
        told, (model, refinement) = read_json(path), path.parts[-3:-1]
        versions = ", ".join(f"{piece} {version}" for piece, version in told["prompts"].items())
        shares = {piece: told["fallback_rate"][piece]["rate"] for piece in told["pieces"]}  # None: a piece that is not refined
        rates = ", ".join(f"{piece} {100 * rate:.1f} %" for piece, rate in shares.items() if rate is not None)
        reasons = "; ".join(f"{piece}: {_counted(counts)}" for piece, counts in told["pieces"].items())
        lines.append(f"- rewritten by {model} ({refinement}; prompt versions {versions}): rejected {rates} ({reasons})")
    return lines


def model_card(
    spec: Mapping[str, Any],
    manifest: Mapping[str, Any],
    made_of: Mapping[str, Any],
    lock: Mapping[str, "Asset"],
    metrics: Sequence[Mapping[str, str]] = (),
) -> str:
    """The card of a trained checkpoint, a model card of the hub.

    `metrics` are the run's rows of metrics.csv, which become the front matter's `model-index`; at the end of a training there are none,
    and the card says where they will be.
    """
    from huggingface_hub.repocard_data import EvalResult, ModelCardData

    found = licensed(_joined([*made_of["weights"], *made_of["rows"]]), lock)
    rates = [row for row in metrics if row["benchmark"] and row["metric"] in RATES and row["value"]]
    measured = sorted(rates, key=lambda row: (row["benchmark"], row["metric"], row["judge"]))
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=row["benchmark"],
            dataset_name=row["benchmark"],
            metric_type=row["metric"],
            metric_value=float(row["value"]),
            metric_name=f"{row['metric']} ({row['judge']})" if row["judge"] else row["metric"],
            metric_args={key: float(row[key]) for key in ("n_items", "ci_low", "ci_high") if row[key]},
        )
        for row in measured
    ]
    data = ModelCardData(
        language=LANGUAGE,
        library_name="transformers",
        pipeline_tag="text-generation",
        **_licence_fields(found),
        base_model=_hub_names(licensed(made_of["weights"], lock), lock, "model") or None,
        datasets=_hub_names(licensed(made_of["rows"], lock), lock, "dataset") or None,
        tags=["untaxed", "safety", "reasoning", spec["method"]],
        model_name=spec["run"] if results else None,
        eval_results=results or None,
    )
    weights = ", ".join(entry["name"] for entry in made_of["weights"] if entry["part"].startswith("base model"))
    lines = [f"# {spec['run']}", "", f"`{spec['model']}` (weights: {weights}) after supervised fine-tuning by the workflow Untaxed.", ""]
    lines += ["## Training", "", "| setting | value |", "|---|---|"]
    settings = {"recipe": spec["recipe"], "method": spec["method"], "safety rows": spec["n"], "seed": spec["seed"], **spec["trainer"]}
    lines += [f"| {key} | {value} |" for key, value in settings.items() if value is not None]
    tokens, loss = manifest["tokens"], manifest["loss"]
    lines += ["", f"{tokens['rows']} rows, {tokens['tokens']} tokens, {tokens['loss_tokens']} with loss; {manifest['steps']} steps."]
    lines += [f"Loss of the first step {loss[0]}, of the last {loss[-1]}."] if loss else []
    lines += [f"Weights: sha256 `{manifest['weights_sha256']}`."] if manifest.get("weights_sha256") else []
    lines += [
        "",
        "Training data: `train.jsonl` of the run's folder; `card.md` beside it describes it.",
        *_teachers(made_of["teachers"]),
        "",
    ]
    lines += [*USE, "It may refuse what it should answer and answer what it should refuse. Not for use by the public.", ""]
    lines += ["## Evaluation", "", *(_evaluation(measured) or [LATER])]
    return _page(data, [*lines, "", *_licence_section(found)])


def _evaluation(measured: Sequence[Mapping[str, str]]) -> list[str]:
    """The run's rates as a table; empty without any."""
    if not measured:
        return []
    lines = ["| benchmark | metric | judge | value | 95 % interval | items |", "|---|---|---|---|---|---|"]
    for row in measured:
        interval = f"[{float(row['ci_low']):.3f}, {float(row['ci_high']):.3f}]" if row["ci_low"] and row["ci_high"] else ""
        cells = (row["benchmark"], row["metric"], row["judge"], f"{float(row['value']):.3f}", interval, row["n_items"])
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", "Of this run alone, from the study's metrics.csv. Judges err; the study's folder `agreement` says how often."]


# ---- all cards of a study ---------------------------------------------------------------------------------------------------------


def card_spec(study: "Study") -> dict:
    """What `cards` is told: which runs and datasets get a card, where their rows are, and what they are made of."""
    known = catalogue(study, study.datasets_used, sorted({spec["model"] for spec in study.trained.values()}))
    files = {name: study.rows(name) for name in study.datasets_used}
    return {"results": study.results, "runs": list(study.trained), "files": files, **known}


def all_cards(spec: Mapping[str, Any], metrics: Path, lock: Mapping[str, "Asset"], root: Path = Path()) -> dict[str, str]:
    """The card of every trained run and every dataset that `card_spec` names. Raises UserError where a run's file is missing."""
    with metrics.open(encoding="utf-8", newline="") as stream:
        measured: dict[str, list[dict]] = {}
        for row in csv.DictReader(stream):
            measured.setdefault(row["run"], []).append(row)
    results, cards = root / spec["results"], {}
    for run in spec["runs"]:
        folder = results / "runs" / run
        told, manifest = read_yaml(folder / "run.yaml"), read_json(folder / "checkpoint" / "manifest.json")
        cards[run] = model_card(told, manifest, made_of(told, spec), lock, measured.get(run, []))
    for name, file in spec["files"].items():
        cards[name] = dataset_card(name, list(read_jsonl(root / file)), spec["datasets"][name], lock, results)
    return cards
