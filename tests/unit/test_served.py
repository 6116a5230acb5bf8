"""Asking servers that misbehave: nothing lost, nothing asked or counted twice, nothing scored that was not answered."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path

import pytest
from misbehaving import serving
from untaxed import served
from untaxed.distillation import REASONS
from untaxed.engine import Request, Sampling, Unanswered, calls_file, generate_resumable, open_engine
from untaxed.judges import JUDGES, judge_samples, open_judge
from untaxed.records import UserError, read_json, read_jsonl, write_jsonl
from untaxed.served import Ledger, retry_after, summarise
from untaxed.serving import serve_command, serve_model

EACH = 8  # tokens of an answer, as the server counts them


def ask(name: str, text: str, **more) -> Request:
    return Request(name, [{"role": "user", "content": text}], **more)


def many(count: int) -> list[Request]:
    return [ask(f"r{number}", f"p{number}") for number in range(count)]


def log_of(path: Path) -> list[dict]:
    return list(read_jsonl(calls_file(path)))


def ended(path: Path) -> list[dict]:
    return [line for line in log_of(path) if line["status"] != "sent"]


@pytest.fixture
def serve(monkeypatch):
    with serving(monkeypatch) as start:
        yield start


# --- faults

STATUS = {
    "slow": "timeout", "cut": "cut connection", "broken": "broken JSON", "twice": "broken JSON", "shape": "wrong shape",
    "html": "wrong shape", "empty": "empty choices", 429: "http 429", 500: "http 500", 503: "http 503",
}  # fmt: skip
QUICK = [
    "cut",
    "broken",
    "twice",
    "shape",
    "html",
    "empty",
    429,
    (429, {"Retry-After": "0.05"}, None),
    500,
    (503, {"retry-after-ms": "20"}, None),
]
LAST = ["ok", "ok", "ok", "length", "trace", "two choices", "uncounted", "filtered", "refusal", (400, {}, "content_filter")]


def planned(count: int) -> dict[str, list]:
    """Faults by prompt: up to four that may pass, then a last word of the server."""
    draws = random.Random(5)
    plan = {f"p{n}": [*draws.choices(QUICK, k=draws.choice([0, 0, 1, 2, 4])), draws.choice(LAST)] for n in range(count)}
    for name in draws.sample(sorted(plan), 4):
        plan[name].insert(0, "slow")
    plan["p0"] = ["empty"] * 8
    return plan


def status_of(fault) -> str:
    fault = fault[0] if isinstance(fault, tuple) and fault[2] is None else fault
    if fault in ("filtered", "refusal") or isinstance(fault, tuple):
        return "refused"
    return STATUS.get(fault, "ok")


def expected_of(name: str, plan: list) -> tuple[str, str]:
    """(text, finish) that the last word of a plan stands for."""
    last = plan[-1]
    if status_of(last) != "ok":
        return "", "empty" if last == "empty" else "refused"
    text = f"<think>\nhm\n</think>\n\nre {name}" if last == "trace" else f"re {name}"
    return text, "length" if last == "length" else "stop"


def test_two_hundred_requests_to_a_server_with_every_fault_are_answered_once_and_each_call_is_logged(serve, tmp_path):
    plan = planned(200)
    assert {status_of(fault) for faults in plan.values() for fault in faults} == {"ok", "refused", *STATUS.values()}
    server, path = serve(plan), tmp_path / "g.jsonl"
    with open_engine(server.spec(concurrency=24, tries=8, timeout_s=2)) as engine:
        found = generate_resumable(engine, many(200), Sampling(max_new_tokens=20), path)
    assert [generation.id for generation in found] == [f"r{number}" for number in range(200)]
    for generation, (name, faults) in zip(found, plan.items(), strict=True):
        assert (generation.text, generation.finish) == expected_of(name, faults)
    assert dict(server.asked) == {name: len(faults) for name, faults in plan.items()}
    assert Counter(line["status"] for line in ended(path)) == Counter(status_of(fault) for faults in plan.values() for fault in faults)
    assert {(line["id"], line["attempt"]) for line in ended(path)} == {
        (f"r{name[1:]}", number + 1) for name, faults in plan.items() for number in range(len(faults))
    }
    assert len(path.read_text().splitlines()) == 200


def test_the_log_holds_no_prompt_no_answer_and_no_key(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("UNTAXED_TEST_KEY", "secret-1234")
    server, path = serve({"a question": [500, 429, "broken"]}), tmp_path / "g.jsonl"
    with open_engine(server.spec(api_key_env="UNTAXED_TEST_KEY")) as engine:
        generate_resumable(engine, [ask("r", "a question")], Sampling(), path)
    text = calls_file(path).read_text()
    assert not [word for word in ("question", "re a", "secret") if word in text]
    assert [line["status"] for line in log_of(path)] == ["sent", "http 500", "sent", "http 429", "sent", "broken JSON", "sent", "ok"]
    assert set(ended(path)[0]) == {
        "id", "attempt", "time", "status", "seconds", "prompt_tokens", "generated_tokens", "estimated_tokens", "retry_after",
    }  # fmt: skip


def test_an_answer_without_counts_is_estimated_and_an_error_of_the_server_costs_nothing(serve, tmp_path):
    server, path = serve({"p" * 9: [500, "broken", "uncounted"]}), tmp_path / "g.jsonl"
    with open_engine(server.spec()) as engine:
        generate_resumable(engine, [ask("r", "p" * 9)], Sampling(max_new_tokens=20), path)
    # 9 characters are 3 tokens; broken JSON: 3 + 20 reserved; `re ppppppppp`, 12 characters, are 3
    assert [served.cost(line) for line in ended(path)] == [0, 23, 6]
    assert summarise(path, 290) == {
        "calls": 3,
        "answered": 1,
        "retries": {"broken JSON": 1, "http 500": 1},
        "tokens": {"prompt": 0, "generated": 0, "estimated": 29},
        "spent": 29,
        "cap": 290,
        "share_of_cap": 0.1,
    }


# --- stops

RESUMED = """
import json, sys
from untaxed.engine import Request, Sampling, generate_resumable, open_engine
spec, path, count = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
requests = [Request(f"r{n}", [{"role": "user", "content": f"p{n}"}]) for n in range(count)]
with open_engine(spec) as engine:
    generate_resumable(engine, requests, Sampling(max_new_tokens=20), path)
"""


def command(root: Path, code: str, *arguments: str, **more) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env={**os.environ, "PYTHONPATH": str(root / "scripts")}, **more)


def wait_for(what, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_killed_job_goes_on_without_asking_again_what_it_has(serve, root, tmp_path):
    server, path = serve(lambda prompt, step: 500 if step == 0 and prompt.endswith("7") else "ok", delay=0.02), tmp_path / "g.jsonl"
    spec = server.spec(concurrency=4)
    job = command(root, RESUMED, json.dumps(spec), str(path), "120")
    wait_for(lambda: lines(path) >= 30)
    job.send_signal(signal.SIGKILL)
    job.wait()
    kept = [json.loads(line)["id"] for line in path.read_bytes().decode().splitlines(keepends=True) if line.endswith("\n")]
    assert 30 <= len(kept) < 120
    before = dict(server.asked)
    with open_engine(spec) as engine:
        found = generate_resumable(engine, many(120), Sampling(max_new_tokens=20), path)
    assert [(generation.id, generation.text) for generation in found] == [(f"r{n}", f"re p{n}") for n in range(120)]
    assert {f"p{name[1:]}": before[f"p{name[1:]}"] for name in kept} == {f"p{name[1:]}": server.asked[f"p{name[1:]}"] for name in kept}
    assert sum(server.answered.values()) <= 120 + 4  # at most what was under way at the kill
    calls = ended(path)
    logged, lost = Counter(line["id"] for line in calls), Counter(line["id"] for line in calls if line["status"] == "lost")
    for number in range(120):  # a call that was lost may have been cut before it reached the server
        assert logged[f"r{number}"] - lost[f"r{number}"] <= server.asked[f"p{number}"] <= logged[f"r{number}"]
    assert len({(line["id"], line["attempt"]) for line in calls}) == len(calls)
    assert lost.total() <= 4


def test_the_cap_holds_across_restarts_and_a_higher_one_goes_on(serve, tmp_path):
    server, path = serve({"p3": [500, "uncounted"]}, delay=0.01), tmp_path / "g.jsonl"
    spec, sampling = server.spec(concurrency=4, key="datasets.few.teacher.engine"), Sampling(max_new_tokens=20)
    told = r"^datasets\.few\.teacher\.engine\.max_total_tokens: \d+ of 150 tokens are spent.*raise it.*g\.jsonl keeps (\d+) of 40 answers"
    for _ in range(2):
        with open_engine({**spec, "max_total_tokens": 150}) as engine, pytest.raises(Unanswered, match=told):
            generate_resumable(engine, many(40), sampling, path)
        kept = lines(path)
        asked = sum(server.asked.values())
    assert 150 - 21 < summarise(path)["spent"] <= 150  # the next one may need 21: 1 for the prompt, 20 to generate
    assert (lines(path), sum(server.asked.values())) == (kept, asked)  # the second start asked nothing
    with open_engine({**spec, "max_total_tokens": 1000}) as engine:
        found = generate_resumable(engine, many(40), sampling, path)
    assert [generation.text for generation in found] == [f"re p{n}" for n in range(40)]
    assert sum(server.asked.values()) == 41  # 40, and `p3` once more
    assert summarise(path, 1000)["spent"] == 39 * EACH + 3  # `p3` and its answer are 1 + 2 tokens by their characters


def test_calls_that_a_kill_cut_short_count_as_what_was_reserved_for_them(tmp_path):
    log = calls_file(tmp_path / "g.jsonl")
    sent = {"attempt": 1, "time": "2026-11-24T00:00:00+00:00", "status": "sent"}
    write_jsonl(log, [{"id": "a", **sent, "reserved": 70}, {"id": "b", **sent, "reserved": 20}])
    log.write_bytes(log.read_bytes() + b'{"id": "c", "att')
    ledger = Ledger({"max_total_tokens": 100})
    for _ in range(2):  # the second time it is known already
        ledger.keep_log(log)
        assert ledger.spent == 90
    again = Ledger({"max_total_tokens": 100})
    again.keep_log(log)
    assert again.spent == 90
    with pytest.raises(Unanswered, match="90 of 100 tokens are spent, and the next call may need 11"):
        again.begin("c", 11)
    assert again.begin("a", 10).attempt == 2


def test_an_answer_that_cannot_be_had_names_its_request_and_keeps_the_others(serve, tmp_path):
    server = serve({"p1": [500] * 9})
    with open_engine(server.spec(concurrency=3)) as engine:
        with pytest.raises(UserError, match=r"engine\.tries: request r1: no answer after 4 tries \(last: http 500\).*keeps 2 of 3 answers"):
            generate_resumable(engine, many(3), Sampling(), tmp_path / "g.jsonl")
        assert {json.loads(line)["id"] for line in (tmp_path / "g.jsonl").open()} == {"r0", "r2"}
        server.script.clear()
        assert len(generate_resumable(engine, many(3), Sampling(), tmp_path / "g.jsonl")) == 3
    assert (server.asked["p0"], server.asked["p2"]) == (1, 1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (400, r"engine: request r: refused with HTTP 400; check max_tokens_field"),
        (401, r"engine\.api_key_env: request r: the server does not accept the key \(HTTP 401\); export a valid key in UNTAXED_TEST_KEY"),
        (403, r"engine\.api_key_env: .*HTTP 403"),
        (404, r"engine\.model: request r: the server knows no such model or address \(HTTP 404\); mend it or engine\.base_url"),
        ((429, {}, "insufficient_quota"), r"engine\.api_key_env: .* nothing left \(HTTP 429, insufficient_quota\); top it up"),
        ((429, {"Retry-After": "86400"}, None), r"engine\.requests_per_minute: .* asks to wait 86400 s"),
    ],
)
def test_an_error_that_will_not_pass_ends_the_job_at_once_with_its_key_and_its_fix(serve, tmp_path, monkeypatch, fault, message):
    monkeypatch.setenv("UNTAXED_TEST_KEY", "secret-1234")
    server = serve({"p": [fault]})
    requests = [ask("r", "p"), *many(300)]
    with open_engine(server.spec(api_key_env="UNTAXED_TEST_KEY", concurrency=2)) as engine:
        with pytest.raises(Unanswered, match=message) as error:
            generate_resumable(engine, requests, Sampling(), tmp_path / "g.jsonl")
        assert server.asked["p"] == 1 and sum(server.asked.values()) < 300
        wait_for(lambda: lines(tmp_path / "g.jsonl") == sum(server.answered.values()), 5)  # the server counts a moment after it has sent
    assert len(str(error.value).splitlines()) == 1 and "secret" not in str(error.value) and "about" not in str(error.value)


def test_a_request_whose_tries_the_end_of_the_job_cut_short_is_not_called_empty(serve, tmp_path):
    server = serve(lambda prompt, step: 401 if prompt == "p1" else time.sleep(0.7) or "empty")
    with open_engine(server.spec(concurrency=2)) as engine, pytest.raises(Unanswered, match="HTTP 401"):
        generate_resumable(engine, many(2), Sampling(), tmp_path / "g.jsonl")
    assert server.asked["p0"] == 1 and lines(tmp_path / "g.jsonl") == 0


# --- rates


def test_no_more_calls_than_allowed_go_in_any_minute(serve, monkeypatch):
    monkeypatch.setattr(served, "MINUTE", 0.8)
    server = serve({})
    with open_engine(server.spec(concurrency=8, requests_per_minute=4)) as engine:
        assert len(list(engine.generate(many(12), Sampling()))) == 12
    gaps = [later - earlier for earlier, later in zip(server.times, server.times[4:], strict=False)]
    assert len(gaps) == 8 and min(gaps) > 0.4  # the server's clock is read a little later than ours


def test_no_more_tokens_than_allowed_go_in_any_minute(serve, monkeypatch):
    monkeypatch.setattr(served, "MINUTE", 0.8)
    server = serve({})
    with open_engine(server.spec(concurrency=1, tokens_per_minute=5 * EACH)) as engine:
        list(engine.generate(many(11), Sampling(max_new_tokens=EACH - 1)))
    gaps = [later - earlier for earlier, later in zip(server.times, server.times[5:], strict=False)]
    assert min(gaps) > 0.4


def test_a_call_larger_than_the_rate_goes_alone_rather_than_never(serve, monkeypatch):
    monkeypatch.setattr(served, "MINUTE", 0.3)
    server = serve({})
    with open_engine(server.spec(tokens_per_minute=6)) as engine:
        list(engine.generate(many(2), Sampling(max_new_tokens=50)))
    assert server.times[1] - server.times[0] > 0.25


def test_a_server_that_asks_for_a_pause_gets_it_from_every_request(serve):
    server = serve({"p0": [(429, {"Retry-After": "0.7"}, None)]})
    with open_engine(server.spec(concurrency=1)) as engine:
        list(engine.generate(many(3), Sampling()))
    assert server.times[1] - server.times[0] >= 0.7


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"x-ratelimit-reset-requests": "6m0s"}, None),  # not used up
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0"}, 360.0),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s", "x-ratelimit-remaining-tokens": "0"}, 3723.5),
        ({"x-ratelimit-reset-tokens": "20ms", "x-ratelimit-remaining-tokens": "0"}, 0.02),
        ({"x-ratelimit-reset-tokens": "7", "x-ratelimit-remaining-tokens": "0"}, 7.0),
        ({"x-ratelimit-reset-tokens": "x", "x-ratelimit-remaining-tokens": "0"}, None),
    ],
)
def test_the_pause_that_a_server_asks_for_is_read_from_its_headers(headers, seconds):
    assert retry_after(headers) == seconds


def test_a_pause_may_end_at_a_date():
    then = datetime.now(UTC) + timedelta(seconds=90)
    assert 85 < retry_after({"retry-after": format_datetime(then, usegmt=True)}) <= 90
    assert retry_after({"retry-after": format_datetime(then - timedelta(days=1), usegmt=True)}) == 0.0


# --- what is read from the answers


def row(name: str, **more) -> dict:
    return {"id": name, "prompt": name, "reasoning": "", "answer": "", "harmful": True, "category": "c", "source": "s", **more}


def test_only_what_a_teacher_answered_becomes_a_row_and_the_report_says_what_it_cost(serve, tmp_path, monkeypatch):
    import distil

    monkeypatch.setenv("UNTAXED_TEST_KEY", "secret-1234")
    script = {"p1": ["filtered"], "p2": ["refusal"], "p3": ["empty"] * 4, "p4": [429, "shape"], "p5": ["length"], "p6": ["trace"]}
    script["p7"] = [(400, {}, "content_filter")]
    server, output, report = serve(script), tmp_path / "rows.jsonl", tmp_path / "report.json"
    write_jsonl(tmp_path / "prompts.jsonl", [row(f"p{n}") for n in range(8)])
    engine = server.spec(api_key_env="UNTAXED_TEST_KEY", max_total_tokens=1000)
    spec = {
        "engine": engine,
        "dataset": "few",
        "sampling": {"max_new_tokens": 20},
        "thinking": {"open": "<think>\n", "close": "\n</think>\n\n"},
    }
    told = [
        "--rows",
        str(tmp_path / "prompts.jsonl"),
        "--work-file",
        str(tmp_path / "w.jsonl"),
        "--output",
        str(output),
        "--report",
        str(report),
    ]
    for _ in range(2):  # the second finds all answers
        distil.main(["--spec", json.dumps(spec), *told])
    rows = {found["id"]: (found["reasoning"], found["answer"]) for found in read_jsonl(output)}
    assert rows == {"p0": ("", "re p0"), "p4": ("", "re p4"), "p6": ("hm", "re p6")}
    found = read_json(report)
    assert found["teacher"] == engine["model"]
    assert found["reasons"] == dict.fromkeys(REASONS, 0) | {"ok": 3, "refused-by-api": 3, "truncated": 1, "empty": 1}
    assert {key: found["calls"][key] for key in ("calls", "answered", "retries")} == {
        "calls": 13,
        "answered": 7,
        "retries": {"empty choices": 3, "http 429": 1, "wrong shape": 1},
    }
    assert sum(server.asked.values()) == 13
    assert not [path.name for path in tmp_path.iterdir() if "secret-1234" in path.read_text()]


def test_wrong_and_unreadable_answers_of_a_teacher_are_counted_and_are_no_rows(serve, tmp_path):
    import distil

    server = serve({})  # it answers `re <prompt>`
    targets = {"1 + 1 = 2": "2", "1 + 2 = 3": "3.0", "2 + 2 = 5": "4", "no idea": "7"}
    write_jsonl(tmp_path / "prompts.jsonl", [row(prompt, target=target) for prompt, target in targets.items()])
    spec = {"engine": server.spec(), "dataset": "sums", "sampling": {"max_new_tokens": 20}, "check": "math"}
    told = ["--rows", str(tmp_path / "prompts.jsonl"), "--work-file", str(tmp_path / "w.jsonl")]
    told += ["--output", str(tmp_path / "rows.jsonl"), "--report", str(tmp_path / "report.json")]
    distil.main(["--spec", json.dumps(spec), *told])
    assert [found["id"] for found in read_jsonl(tmp_path / "rows.jsonl")] == ["1 + 1 = 2", "1 + 2 = 3"]
    counted = read_json(tmp_path / "report.json")["reasons"]
    assert {reason: count for reason, count in counted.items() if count} == {"ok": 2, "wrong": 1, "unparseable": 1}
    with pytest.raises(UserError, match=r"datasets\.sums\.teacher: only 2 of 4 answers can be used, 3 are asked for"):
        distil.main(["--spec", json.dumps(spec | {"limit": 3}), *told])
    assert sum(server.asked.values()) == 4  # the second found all answers


def test_a_teachers_cap_names_the_data_set_and_keeps_what_was_answered(serve, tmp_path):
    import distil

    server = serve({})
    write_jsonl(tmp_path / "prompts.jsonl", [row(f"p{n}") for n in range(20)])
    spec = {"engine": server.spec(max_total_tokens=60, concurrency=1), "dataset": "few", "sampling": {"max_new_tokens": 20}}
    told = ["--rows", str(tmp_path / "prompts.jsonl"), "--work-file", str(tmp_path / "w.jsonl")]
    told += ["--output", str(tmp_path / "rows.jsonl"), "--report", str(tmp_path / "report.json")]
    with pytest.raises(UserError, match=r"^datasets\.few\.teacher\.engine\.max_total_tokens: .*w\.jsonl keeps 5 of 20 answers"):
        distil.main(["--spec", json.dumps(spec), *told])  # 5 x 8 are spent, and 21 more do not fit into 60
    assert not (tmp_path / "rows.jsonl").exists()
    distil.main(["--spec", json.dumps(spec | {"engine": spec["engine"] | {"max_total_tokens": 10**6}}), *told])
    assert len(list(read_jsonl(tmp_path / "rows.jsonl"))) == 20 and sum(server.asked.values()) == 20


def test_what_a_server_withheld_is_no_verdict(serve, tmp_path):
    script = {"filtered": ["filtered"], "refusal": ["refusal"], "empty": ["empty"] * 4, "unsafe": ["broken", 500], "short": ["length"]}
    script |= {"code": [(400, {}, "content_filter")], "long": [(400, {}, "context_length_exceeded")]}
    server = serve(script)  # what is filtered says `safe`, which must not count
    samples = [
        {"benchmark": "b", "id": name, "prompt": name, "generation": "x", "answer": "x", "closed": True, "harmful": True} for name in script
    ]
    spec = {"judge": "guard", "kind": "llama_guard", "prompt": None, "benchmarks": ["b"], "engine": server.spec()}
    with open_judge(spec) as engine:
        found = list(judge_samples(samples, spec, engine, tmp_path / "w.jsonl"))
    assert {record["id"]: record["verdict"] for record in found} == {
        "unsafe": "unsafe",
        **dict.fromkeys(("filtered", "refusal", "empty", "short", "code", "long"), "unparseable"),
    }


def test_a_judge_at_a_server_names_its_key_when_the_job_cannot_go_on(serve):
    sample = {"benchmark": "b", "id": "p", "prompt": "p", "generation": "x", "answer": "x", "closed": True, "harmful": True}
    spec = {"judge": "guard", "kind": "llama_guard", "benchmarks": ["b"], "engine": serve({"p": [404]}).spec()}
    with (
        open_judge(spec) as engine,
        pytest.raises(Unanswered, match=r"^judges\.guard\.engine\.model: request b/p: .*judges\.guard\.engine\.base_url"),
    ):
        list(judge_samples([sample], spec, engine))


@pytest.mark.parametrize("kind", [name for name, kind in JUDGES.items() if kind.build])
def test_a_judge_reads_no_verdict_from_an_empty_answer(kind):
    assert JUDGES[kind].parse("", {}, {}).verdict == "unparseable"


# --- keys, and what a server is asked


def test_the_key_comes_from_the_environment_alone_and_is_not_part_of_what_is_kept(serve, monkeypatch, tmp_path):
    server = serve({"bad": [401]})
    spec = server.spec(api_key_env="UNTAXED_TEST_KEY")
    monkeypatch.delenv("UNTAXED_TEST_KEY", raising=False)
    with pytest.raises(UserError, match="UNTAXED_TEST_KEY"), open_engine(spec):
        pass
    monkeypatch.setenv("UNTAXED_TEST_KEY", "secret-1234")
    with open_engine(spec) as engine:
        generate_resumable(engine, [ask("r", "p")], Sampling(), tmp_path / "g.jsonl")
        with pytest.raises(UserError) as error:
            list(engine.generate([ask("bad", "bad")], Sampling()))
    assert server.bodies[0][1] == "Bearer secret-1234"
    assert "secret" not in str(error.value) + json.dumps(engine.identity) + (tmp_path / "g.jsonl").read_text()


def test_limits_and_transport_are_no_part_of_what_an_answer_depends_on(serve):
    server, other = serve({}), serve({})
    limits = {"max_total_tokens": 10**6, "requests_per_minute": 100, "tokens_per_minute": 10**6, "key": "judges.x.engine", "concurrency": 2}
    with (
        open_engine(server.spec()) as plain,
        open_engine(other.spec(**limits)) as limited,
        open_engine(server.spec(send_seed=False)) as third,
    ):
        assert plain.identity == limited.identity != third.identity


def test_sampling_reaches_the_server(serve):
    server = serve({})
    with open_engine(server.spec(max_tokens_field="max_completion_tokens", send_seed=False, extra_body={"top_k": 5})) as engine:
        list(engine.generate([ask("a", "a")], Sampling(0.7, 0.9, 20, ["\n\n"])))
    body, _ = server.bodies[0]
    assert (body["temperature"], body["top_p"], body["max_completion_tokens"], body["stop"], body["top_k"]) == (0.7, 0.9, 20, ["\n\n"], 5)
    assert "seed" not in body and "max_tokens" not in body


def test_a_trace_of_its_own_field_is_put_between_the_markers(serve):
    server = serve({"b": ["trace"]})
    with open_engine(server.spec(thinking={"open": "<t>", "close": "</t>"})) as engine:
        assert [generation.text for generation in engine.generate([ask("b", "b")], Sampling())] == ["<t>hm</t>re b"]


def test_a_prefill_is_the_start_of_the_assistants_message(serve):
    server = serve({})
    with open_engine(server.spec()) as engine:
        list(engine.generate([ask("a", "a", prefill="Sure")], Sampling()))
    body, _ = server.bodies[0]
    assert body["messages"][-1] == {"role": "assistant", "content": "Sure"}
    assert body["continue_final_message"] is True and body["add_generation_prompt"] is False


# --- a server of the job's own; a small program stands in for vLLM

STAND_IN = """
import json, os, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
port, pids = int(sys.argv[1]), sys.argv[2]
worker = subprocess.Popen(["sleep", "600"])
open(pids, "w").write(f"{os.getpid()} {worker.pid}\\n")
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.path == "/health" or self.headers.get("Authorization") == "Bearer " + os.environ["VLLM_API_KEY"]
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"max_model_len": 77}]}).encode())
    def log_message(self, *arguments): pass
HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""

STARTED = """
import sys, time
from untaxed import serving
serving.find_spec, serving.use_vllm = (lambda name: True), (lambda *settings: None)
serving.serve_command = lambda spec, port: ["-c", sys.argv[1], str(port), sys.argv[2]]
with serving.serve_model({"model": "m"}):
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Let `serve_model` start a program in place of vLLM; yields what sets it and the file with the pids of it and of its worker."""
    from untaxed import serving as module

    monkeypatch.setattr(module, "find_spec", lambda name: True)
    monkeypatch.setattr(module, "use_vllm", lambda *settings: None)

    def start(code: str) -> Path:
        monkeypatch.setattr(module, "serve_command", lambda spec, port: ["-c", code, str(port), str(tmp_path / "pids")])
        return tmp_path / "pids"

    return start


def running(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids_in(path: Path) -> list[int]:
    return [int(pid) for pid in path.read_text().split()]


def test_a_server_of_the_job_is_up_with_a_key_and_gone_at_the_end_with_all_that_it_started(stand_in):
    pids = stand_in(STAND_IN)
    with pytest.raises(ZeroDivisionError), serve_model({"model": "m"}) as server:
        assert server["base_url"].startswith("http://127.0.0.1:") and server["max_model_len"] == 77 and len(server["api_key"]) > 30
        assert all(map(running, pids_in(pids)))
        raise ZeroDivisionError
    wait_for(lambda: not any(map(running, pids_in(pids))), 10)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGKILL, -9)])
def test_a_job_that_is_stopped_takes_its_server_along(root, tmp_path, number, code):
    job = command(root, STARTED, STAND_IN, str(tmp_path / "pids"), stdout=subprocess.PIPE)
    assert job.stdout.readline() == b"up\n"
    server, worker = pids_in(tmp_path / "pids")
    job.send_signal(number)
    assert job.wait(30) == code
    wait_for(lambda: not running(server), 10)
    if running(worker):  # only a kill leaves it: vLLM's own workers look after their parent
        assert number == signal.SIGKILL
        os.kill(worker, signal.SIGKILL)


def test_a_server_that_ends_says_why_and_one_that_does_not_come_up_is_not_waited_for(stand_in):
    stand_in("import sys; print('no such weights'); sys.exit(3)")
    with (
        pytest.raises(UserError, match=r"ended with exit code 3 before it answered; its last lines: no such weights"),
        serve_model({"model": "m"}),
    ):
        pass
    pids = stand_in("import os, sys, time; open(sys.argv[2], 'w').write(str(os.getpid())); print('loading', flush=True); time.sleep(600)")
    with (
        pytest.raises(UserError, match=r"engine\.start_timeout_s: vllm serve did not answer within 1 s; .*loading"),
        serve_model({"model": "m", "start_timeout_s": 1}),
    ):
        pass
    assert not any(map(running, pids_in(pids)))


def test_vllm_is_told_the_model_and_listens_on_this_machine_alone():
    told = serve_command({"model": "models/m", "dtype": "bfloat16", "max_model_len": 512, "batch_size": 8, "enforce_eager": True}, 8123)
    assert told[:4] == ["-m", "vllm.entrypoints.cli.main", "serve", "models/m"]
    pairs = dict(pairwise(told))
    assert (pairs["--host"], pairs["--port"], pairs["--dtype"], pairs["--max-model-len"]) == ("127.0.0.1", "8123", "bfloat16", "512")
    assert pairs["--max-num-seqs"] == "8" and told[-1] == "--enforce-eager" and "--api-key" not in told
