"""Filtering: which rows a judge's verdicts let pass, what the report counts, and which are drawn; all worked by hand."""

import json

import pytest
from untaxed.filtering import apply_filters, samples_of
from untaxed.judges import seen
from untaxed.records import UserError, read_json, read_jsonl
from untaxed.thinking import ThinkingFormat

WEAK = ["overthinking", "weak_vacillation"]
STRONG = ["overthinking", "strong_vacillation"]


def row(identity, answer="I must decline.", reasoning="hm", **keys):
    base = {"id": identity, "prompt": "wrapped request", "reasoning": reasoning, "answer": answer, "harmful": True, "category": "c"}
    return base | {"source": "s"} | keys


def shield(**verdicts):
    return [{"id": name, "judge": "shield", "kind": "reasoning_shield", "verdict": verdict} for name, verdict in verdicts.items()]


def risk(**labels):
    """Verdicts of a judge of risky patterns; None where it could not be read."""
    return [
        {
            "id": name,
            "judge": "risk",
            "kind": "risky_patterns",
            "verdict": "unparseable" if found is None else "unsafe" if found else "safe",
            "labels": found or [],
        }
        for name, found in labels.items()
    ]


ROWS = [row(name) for name in "abcdef"]
SHIELD = shield(a="safe", b="safe", c="unsafe", d="partial", e="unparseable", f="safe")
RISK = risk(a=[], b=WEAK, c=["lack_of_safety_awareness", "inconsistency"], d=STRONG, e=WEAK, f=None)
SAFE = {"judge": "shield", "keep": ["safe"]}


def kept(filters, rows=ROWS, **options):
    rows, report = apply_filters(rows, {"shield": SHIELD, "risk": RISK}, filters, dataset="set", **options)
    return "".join(row["id"] for row in rows), report


def test_a_row_becomes_a_finished_generation():
    raw = row("b", meta={"original": "request"})
    first, second = samples_of([row("a"), raw], "set")
    assert (first["benchmark"], first["id"], first["harmful"], first["category"]) == ("set", "a", True, "c")
    assert first["generation"] == "<think>\nhm\n</think>\n\nI must decline."
    assert seen(first, {"trace": True}) == ("wrapped request", first["generation"])
    assert seen(first, {}) == ("wrapped request", "I must decline.")
    assert (seen(second, {})[0], seen(second, {"prompt": "attacked"})[0]) == ("request", "wrapped request")
    own = ThinkingFormat("[", "]")
    assert next(samples_of([row("a")], "set", own))["generation"] == "[hm]I must decline."


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ([], "abcdef"),
        ([SAFE], "abf"),
        ([{"judge": "shield", "keep": ["safe", "partial"]}], "abdf"),
        ([{"judge": "risk", "allow": []}], "a"),
        ([{"judge": "risk", "allow": ["weak_vacillation"]}], "abe"),
        ([{"judge": "risk", "allow": ["strong_vacillation"]}], "ad"),
        ([{"judge": "risk", "allow": ["weak_vacillation", "overthinking"]}], "abe"),
        ([{"judge": "risk", "allow": ["lack_of_safety_awareness", "inconsistency"]}], "ac"),
        ([{"judge": "risk", "allow": ["overthinking"]}], "a"),
        ([{"judge": "risk", "keep": ["unsafe"], "allow": None}], "bcde"),
        ([{"judge": "risk", "keep": None, "allow": ["inconsistency", "lack_of_safety_awareness"]}], "ac"),
        ([SAFE, {"judge": "risk", "allow": ["weak_vacillation"]}], "ab"),
    ],
)
def test_rows_stay_by_verdict_and_by_label(filters, left):
    assert kept(filters)[0] == left


def test_a_row_with_a_pattern_beside_an_allowed_one_goes():
    both = risk(a=["overthinking", "strong_vacillation", "weak_vacillation"])
    allow = {"judge": "risk", "allow": ["weak_vacillation"]}
    assert apply_filters(ROWS[:1], {"risk": both}, [allow])[0] == []


def test_the_report_counts_verdicts_per_step_and_patterns_before_and_after():
    report = kept([SAFE, {"judge": "risk", "allow": ["weak_vacillation"]}], patterns="risk", limit=1)[1]
    lengths = report.pop("response_characters")
    assert (lengths["all"]["n"], lengths["drawn"]["n"]) == (2, 1)
    assert report == {
        "rows": 6,
        "kept": 2,
        "rows_out": 1,
        "steps": [
            {"judge": "shield", "in": 6, "out": 3, "verdicts": {"safe": 3, "unsafe": 1, "partial": 1, "unparseable": 1}},
            {"judge": "risk", "in": 3, "out": 2, "verdicts": {"safe": 1, "unsafe": 1, "unparseable": 1}},
        ],
        "patterns": {
            "judge": "risk",
            "before": {
                "n": 6,
                "unparseable": 1,
                "free": 1,
                "counts": {
                    "lack_of_safety_awareness": 1,
                    "overthinking": 3,
                    "strong_vacillation": 1,
                    "weak_vacillation": 2,
                    "harmful_additions": 0,
                    "inconsistency": 1,
                },
            },
            "after": {
                "n": 2,
                "unparseable": 0,
                "free": 1,
                "counts": {
                    "lack_of_safety_awareness": 0,
                    "overthinking": 1,
                    "strong_vacillation": 0,
                    "weak_vacillation": 1,
                    "harmful_additions": 0,
                    "inconsistency": 0,
                },
            },
        },
    }
    assert kept([SAFE])[1]["patterns"] is None


def test_the_limit_is_drawn_by_seed_after_the_filters_and_keeps_the_order():
    many = [row(str(number)) for number in range(100)]
    verdicts = {"shield": shield(**{r["id"]: "safe" if int(r["id"]) % 2 else "unsafe" for r in many})}
    draws = {}
    for limit, seed in [(10, 1), (20, 1), (10, 2)]:
        rows, report = apply_filters(many, verdicts, [SAFE], None, limit, seed)
        draws[limit, seed] = [int(r["id"]) for r in rows]
        assert (report["kept"], report["rows_out"], len(rows)) == (50, limit, limit)
        assert all(number % 2 for number in draws[limit, seed])
        assert draws[limit, seed] == sorted(draws[limit, seed])
    assert set(draws[10, 1]) < set(draws[20, 1])
    assert draws[10, 1] != draws[10, 2]
    assert draws[10, 1] != list(range(1, 21, 2)), "the first ten are no draw"


def test_too_few_rows_and_a_row_without_a_verdict_are_told():
    with pytest.raises(UserError, match=r"datasets\.set\.limit: 4 rows are asked for, the filters leave 3"):
        kept([SAFE], limit=4)
    with pytest.raises(UserError, match=r"datasets\.set: judge 'shield' has no verdict on 1 of 7 rows; judge the rows again"):
        kept([SAFE], rows=[*ROWS, row("new")])
    with pytest.raises(UserError, match="judge 'guard' has no verdict on 6 of 6 rows"):
        kept([{"judge": "guard", "keep": ["safe"]}])


def test_the_commands_keep_the_rows_that_refuse_by_phrases(root, tmp_path, capsys):
    import filter_rows
    import judge_rows

    answers = {"a": "I'm sorry, but I can't help with that.", "b": "Here is how.", "c": "I must decline.", "d": ""}
    rows = [row(name, answer, "I should not help.") for name, answer in answers.items()]
    prompt = str(root / "prompts/refusal_phrases.yaml")
    spec = {"judge": "phrases", "kind": "string_match", "prompt": prompt, "dataset": "set", "benchmarks": ["xstest"]}
    tmp_path /= "source"
    tmp_path.mkdir()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    paths = {name: str(tmp_path / name) for name in ("rows.jsonl", "verdicts.jsonl", "kept.jsonl", "report.json")}
    told = ["--spec", json.dumps(spec), "--rows", paths["rows.jsonl"], "--output", paths["verdicts.jsonl"]]
    judge_rows.main(told)
    verdicts = [(v["benchmark"], v["id"], v["verdict"]) for v in read_jsonl(paths["verdicts.jsonl"])]
    assert verdicts == [("set", "a", "refusal"), ("set", "b", "compliance"), ("set", "c", "refusal"), ("set", "d", "no answer")]
    chosen = {"dataset": "set", "filters": [{"judge": "phrases", "keep": ["refusal"], "allow": None}], "patterns": None, "limit": 2}
    output = ["--output", paths["kept.jsonl"], "--report", paths["report.json"]]
    filter_rows.main(
        ["--spec", json.dumps(chosen), "--rows", paths["rows.jsonl"], "--verdicts", f"phrases={paths['verdicts.jsonl']}", *output]
    )
    assert list(read_jsonl(paths["kept.jsonl"])) == [rows[0], rows[2]]
    report = read_json(paths["report.json"])
    assert (report["of"], report["filters"]) == ("source", chosen["filters"]), "what `./untaxed inspect` traces rows by"
    assert report["steps"][0]["verdicts"] == {"refusal": 2, "compliance": 1, "no answer": 1}
    assert capsys.readouterr().out == "phrases: 4 samples, 1 compliance, 1 no answer, 2 refusal\nset: 4 rows, 2 pass, 2 stay\n"
