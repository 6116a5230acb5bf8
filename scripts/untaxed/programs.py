"""Programs that a model wrote for contest problems (LiveCodeBench, arXiv:2403.07974): their tests, and whether a program passes them.

A problem is {"function": name or null, "tests": [[input, output], …]}. Without a function the program reads stdin and prints; with one, the
lines of an input are its arguments as JSON, and the output is what it returns as JSON. Expected outputs stay outside of the sandbox.
"""

import base64
import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, InvalidOperation

from untaxed.sandbox import Limits, run

SECONDS = 6.0  # for one test: LiveCodeBench's own limit, which there leaves out the start of the interpreter
# What LiveCodeBench imports before every program, as contest sites do. `builtins` comes last, so that pow and open are its own.
MODULES = ["string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"]
MODULES += ["itertools", "functools", "operator", "io", "sys", "json", "typing", "builtins"]
PRELUDE = "\n".join([*(f"from {name} import *" for name in MODULES), *(f"import {name}" for name in MODULES)])
READS = """{prelude}
sys.setrecursionlimit(50000)
try:
    exec(compile({code!r}, "solution.py", "exec"), globals())
except SystemExit:
    pass
"""
CALLED = """{prelude}
sys.setrecursionlimit(50000)
exec(compile({code!r}, "solution.py", "exec"), globals())
import json, sys
function = getattr(Solution(), {name!r}) if "Solution" in globals() else globals()[{name!r}]
result = function(*(json.loads(line) for line in sys.stdin.read().splitlines() if line.strip()))
print("\\n" + json.dumps(result))
"""


def pack(problem: dict) -> str:
    """A problem as short text for a row: JSON, compressed, in base64."""
    return base64.b64encode(zlib.compress(json.dumps(problem).encode())).decode()


def unpack(text: str) -> dict:
    return json.loads(zlib.decompress(base64.b64decode(text)))


def passes(code: str, problem: dict, seconds: float = SECONDS) -> bool:
    """Whether a program gives the right output on every test, each in a sandbox of its own with `seconds` and 4 GiB.

    As many tests run at once as there are cores, and the first miss ends it. Raises UserError where there is no sandbox.
    """
    if not code.strip():
        return False
    limits = Limits(seconds=seconds, memory_mib=4096, output_bytes=64 << 20)
    name = problem["function"]
    source = (CALLED if name else READS).format(prelude=PRELUDE, code=code, name=name)
    equal = same_value if name else same_output

    def right(test: list[str]) -> bool:
        outcome = run(source, stdin=test[0], limits=limits)
        return outcome.status == "finished" and equal(outcome.stdout, test[1])

    tests, workers = problem["tests"], len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as pool:
        return all(all(pool.map(right, tests[start : start + workers])) for start in range(0, len(tests), workers))


def same_output(printed: str, expected: str) -> bool:
    """Whether two printed outputs agree: line by line without the space around, or number by number where both lines are numbers."""
    lines = [[line.strip() for line in text.strip().split("\n")] for text in (printed, expected)]
    return len(lines[0]) == len(lines[1]) and all(a == b or _same_numbers(a, b) for a, b in zip(*lines, strict=True))


def _same_numbers(one: str, other: str) -> bool:
    try:
        return [Decimal(word) for word in one.split()] == [Decimal(word) for word in other.split()]
    except InvalidOperation:
        return False


def same_value(printed: str, expected: str) -> bool:
    """Whether the JSON on the last printed line is the expected value; what a solution prints itself stands before it."""
    try:
        return json.loads(printed.rstrip("\n").rpartition("\n")[2]) == json.loads(expected)
    except ValueError:
        return False
