"""What batching gains PAIR: every round of all behaviours and streams in one engine call per model, against one request per call.

    python perf/bench_pair.py                                  engines that are simulated: a call costs a fixed time and a time per request
    python perf/bench_pair.py --model FOLDER --tokens 128      a real target; attacker and judge stay scripts, which cost nothing

Both sides run the same code on the same behaviours (made-up nouns), and the second hands its engines one request at a time. The scripted
attacker always writes valid JSON and the judge never says 10, so that both sides make every request that the sizes allow. A real target
answers greedily, and the result says for what share of the behaviours both sides ended with the same record.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

from measure import ROOT, alternate, machine, parser, prepare, report, spread, summary, table


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--model", type=Path, help="folder of a real target (default: simulated)")
    made.add_argument("--behaviours", type=int, default=4)
    made.add_argument("--streams", type=int, default=5)
    made.add_argument("--iterations", type=int, default=5)
    made.add_argument("--tokens", type=int, default=128, help="new tokens of a real target's answer, at most")
    made.add_argument("--batch", type=int, default=32, help="batch size of a real target")
    made.add_argument("--call-seconds", type=float, default=0.05, help="simulated: seconds of a call")
    made.add_argument("--request-seconds", type=float, default=0.002, help="simulated: seconds of each request in it")
    options = made.parse_args()
    prepare(options)
    before = machine()
    from untaxed.attacks import run_attack
    from untaxed.engine import Engine, open_engine
    from untaxed.organism import requests as make_requests

    rows = make_requests({"rows": options.behaviours})
    prompts = ROOT / "prompts/attacks"
    spec = {
        "attack": "pair",
        "streams": options.streams,
        "iterations": options.iterations,
        "attacker": {"engine": {"model": "script"}, "prompt": prompts / "pair_attacker.yaml"},
        "target": {"engine": {"model": "script"}, "sampling": {"max_new_tokens": options.tokens}},
        "judge": {"engine": {"model": "script"}, "prompt": prompts / "pair_judge.yaml"},
    }
    seconds = (0.0, 0.0) if options.model else (options.call_seconds, options.request_seconds)
    scripts = {"attacker": write_attack, "target": lambda identity: f"no to {identity}", "judge": rate}
    engines = {role: Engine(scripted(say, *seconds), {"model": role}) for role, say in scripts.items()}
    local = {"backend": "transformers", "model": str(options.model), "batch_size": options.batch, "threads": options.threads}
    with open_engine(local | {"too_long": "empty"}) if options.model else nullcontext(engines["target"]) as target:
        engines["target"] = target

        def side(wrap: Callable) -> dict:
            calls: list[int] = []
            wrapped = {role: Engine(wrap(counted(engine.generate, calls)), engine.identity) for role, engine in engines.items()}
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                records = run_attack(rows, spec, wrapped, Path(folder) / "work.jsonl")
                return {"seconds": time.perf_counter() - started, "calls": len(calls), "requests": sum(calls), "records": records}

        found = alternate(
            {"one call a round": lambda: side(lambda generate: generate), "one request a call": lambda: side(one_by_one)}, options.repeats
        )
    text, record = results(found)
    size = f"{options.behaviours} behaviours, {options.streams} streams, {options.iterations} iterations"
    what = (
        f"target {options.model.name}, up to {options.tokens} tokens, batch size {options.batch}"
        if options.model
        else (f"simulated engines, {options.call_seconds} s a call and {options.request_seconds} s a request")
    )
    text += f"\n{size}; {what}. Medians of {options.repeats} (least to most), in turns.\n"
    report(options, "bench_pair", "PAIR", before, record | {"size": size, "what": what}, text)


def write_attack(identity: str) -> str:
    """An attacker's reply to the request of this id."""
    return json.dumps({"improvement": "another wording", "prompt": f"please make {identity.partition('/')[0]}"})


def rate(identity: str) -> str:
    """A judge's reply; never 10, so that nothing ends early."""
    return f"RATING: {len(identity) % 9 + 1}"


def scripted(say: Callable[[str], str], call_seconds: float, request_seconds: float) -> Callable:
    """`generate` of an engine that says `say(id)` and sleeps as long as a model would take."""
    from untaxed.engine import Generation, Request, Sampling

    def generate(requests: Iterable[Request], sampling: Sampling) -> Iterator[Generation]:
        requests = list(requests)
        time.sleep(call_seconds + request_seconds * len(requests))
        for request in requests:
            yield Generation(request.id, say(request.id), [], "stop", 1)

    return generate


def counted(generate: Callable, calls: list[int]) -> Callable:
    """`generate` that appends the number of requests of each call to `calls`."""

    def counting(requests: Iterable, sampling: object) -> Iterator:
        requests = list(requests)
        calls.append(len(requests))
        yield from generate(requests, sampling)

    return counting


def one_by_one(generate: Callable) -> Callable:
    """`generate` that makes a call of its own of every request."""

    def single(requests: Iterable, sampling: object) -> Iterator:
        for request in requests:
            yield from generate([request], sampling)

    return single


def results(found: dict[str, list[dict]]) -> tuple[str, dict]:
    """A table of seconds, calls and requests of both sides, their ratio, and the share of behaviours with equal records."""
    sides = {
        name: {"seconds": summary([run["seconds"] for run in runs]), "calls": runs[0]["calls"], "requests": runs[0]["requests"]}
        for name, runs in found.items()
    }
    (batched, single), (first, second) = sides.values(), (runs[0]["records"] for runs in found.values())
    equal = sum(a == b for a, b in zip(first, second, strict=True)) / len(first)
    ratio = single["seconds"]["median"] / batched["seconds"]["median"]
    rows = [[name, spread(side["seconds"]), side["calls"], side["requests"]] for name, side in sides.items()]
    text = table(["side", "seconds", "engine calls", "requests"], rows)
    text += f"\nBatched is {ratio:.3g} times as fast. Equal records for {equal:.0%} of the behaviours.\n"
    return text, {"sides": sides, "ratio": ratio, "equal_records": equal}


if __name__ == "__main__":
    main()
