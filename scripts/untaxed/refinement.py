"""Distribution-Grounded Refinement (DGR, arXiv 2602.02136): the target model says each safety sample in its own words before training.

Each piece of a row, the reasoning and the answer, is rewritten by its own template. Equation 3 keeps, per piece, the rewrite if it
passes the filters and the original piece otherwise. The first of these reasons that holds decides:

  overthinking   the rewrite did not end by itself within max_new_tokens (the paper's filter 1)
  stray-marker   a thinking marker where none may be: the model stopped inside its own thought, or the rewrite holds a marker
  empty          there is no rewrite
  meta-thinking  the rewrite holds a phrase of the ban list (the paper's filter 2)
  lost-refusal   the answer to a harmful prompt refused, and the rewrite of it does not (not in the paper; for small models)
  ok             none of the above

`overthinking` and `meta-thinking` can be switched off, as the paper's ablations do, and `lost-refusal` has to be switched on; on or
off, the report counts what it finds. `stray-marker` and `empty` are always on: such text would break the format that it is put into.
A reasoning model thinks before it rewrites: its rewrite is what follows its own closing marker.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from untaxed.engine import Generation, Request
from untaxed.judges import find_refusal
from untaxed.prompts import read_prompt
from untaxed.records import UserError, read_yaml
from untaxed.thinking import ThinkingFormat

PIECES = ("reasoning", "answer")
FILTERS = ("overthinking", "meta-thinking")
OWN_FILTERS = ("lost-refusal",)
REASONS = ("ok", "overthinking", "meta-thinking", "lost-refusal", "empty", "stray-marker", "not-refined")
PLACEHOLDERS = ("question", "piece")


@dataclass(frozen=True)
class Template:
    """A rewrite instruction with the placeholders {question} and {piece}; `version` comes from the file's header."""

    text: str
    version: str

    def fill(self, question: str, piece: str) -> str:
        """Both are put in at once, so that braces in a question or a piece stay as they are."""
        values = {"question": question, "piece": piece}
        return re.sub(r"\{(question|piece)\}", lambda match: values[match[1]], self.text)


@dataclass(frozen=True)
class BanList:
    """The phrases of the meta-thinking filter."""

    phrases: tuple[str, ...]
    version: str

    def found(self, text: str) -> set[str]:
        """The phrases in `text`; case and the kind of apostrophe do not matter."""
        text = text.replace("’", "'")
        return {phrase for phrase in self.phrases if _pattern(phrase).search(text)}


def _pattern(phrase: str) -> re.Pattern:
    stem, ending = (phrase[:-1], r"\w*") if phrase.endswith("*") else (phrase, "")
    words = r"\s+".join(re.escape(word) for word in stem.replace("’", "'").split())
    return re.compile(rf"(?<!\w){words}{ending}(?!\w)", re.IGNORECASE)


def read_template(path: Path | str, show_question: bool = True) -> Template:
    """Read a prompt file: comment lines (#) at the top are its header, the rest is sent.

    Without `show_question` the paragraphs that hold {question} are left out. Raises UserError when the file is missing, holds an unknown
    placeholder, or has no {piece}.
    """
    text, version = read_prompt(path)
    for name in re.findall(r"\{(\w+)\}", text):
        if name not in PLACEHOLDERS:
            raise UserError(f"{path}: unknown placeholder {{{name}}}; a rewrite prompt knows {{question}} and {{piece}}")
    if not show_question:
        text = "\n\n".join(paragraph for paragraph in re.split(r"\n{2,}", text) if "{question}" not in paragraph)
    if "{piece}" not in text:
        raise UserError(f"{path}: no placeholder {{piece}}; the model would not see what to rewrite")
    return Template(text, version)


def read_ban_list(path: Path | str) -> BanList:
    """Raises UserError when the file is missing or has no list of phrases."""
    content = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("phrases"), list):
        raise UserError(f"{path}: no list `phrases`; give the phrases of the meta-thinking filter")
    return BanList(tuple(str(phrase) for phrase in content["phrases"]), str(content.get("version", "")))


def check_spec(spec: dict) -> None:
    """Raises UserError for unknown pieces, filters or fallbacks, a piece without a prompt file, and blank thinking markers."""
    for key, known in (("pieces", PIECES), ("filters", FILTERS + OWN_FILTERS)):
        for name in spec.get(key, known):
            if name not in known:
                raise UserError(f"refinement.{key}: {name!r} is none of {', '.join(known)}")
    if spec.get("fallback", "original") not in ("original", "drop"):
        raise UserError(f"refinement.fallback: {spec['fallback']!r} is neither original nor drop")
    for piece in spec.get("pieces", PIECES):
        if piece not in spec.get("prompts", {}):
            raise UserError(f"refinement.prompts.{piece}: missing; name the prompt file of this piece")
    for key, marker in (spec.get("thinking") or {}).items():
        if not marker.strip():
            raise UserError(f"thinking.{key}: blank; give the marker, or leave `thinking` out for a model that does not think")


def read_templates(spec: dict) -> dict[str, Template]:
    """The template of every piece that `spec` refines."""
    return {piece: read_template(spec["prompts"][piece], spec.get("show_question", True)) for piece in spec.get("pieces", PIECES)}


def build_requests(rows: Iterable[dict], spec: dict) -> list[Request]:
    """One rewrite request per row and piece, `<row id>/<piece>`. An empty piece has nothing to rewrite and gets none.

    Rows with equal pieces (DirectRefusal has one thought for all) get different draws, because the engine draws by request id.
    """
    templates = read_templates(spec)
    return [
        Request(f"{row['id']}/{piece}", [{"role": "user", "content": template.fill(row["prompt"], row[piece])}], spec.get("seed", 0))
        for row in rows
        for piece, template in templates.items()
        if row[piece].strip()
    ]


def judge_piece(
    generation: Generation, thinking: ThinkingFormat | None, filters: Sequence[str], bans: BanList, original: str = ""
) -> tuple[str, str]:
    """(reason, rewrite) of one generation; the reasons stand at the top of this module. `thinking` is None for a model that never thinks.

    A phrase of `bans` that `original` holds too does not count: a faithful rewrite of "the user wants me to …" keeps it.
    """
    text, closed = generation.text.strip(), True
    if thinking:
        trace, text, closed = thinking.split(thinking.whole(generation))
        closed = closed or not trace
    if generation.finish == "length" and "overthinking" in filters:
        return "overthinking", text
    if not closed or (thinking and thinking.markers_in(text)):
        return "stray-marker", text
    if not text:
        return "empty", text
    if "meta-thinking" in filters and bans.found(text) - bans.found(original):
        return "meta-thinking", text
    return "ok", text


def lost_refusal(row: dict, rewrite: str, texts: dict) -> bool:
    """Whether a harmful row's answer holds a refusal phrase of `texts` and its rewrite holds none."""
    return row["harmful"] and find_refusal(row["answer"], texts) is not None and find_refusal(rewrite, texts) is None


def assemble(rows: Sequence[dict], results: Iterable[Generation], spec: dict) -> tuple[list[dict], dict]:
    """Equation 3: (refined rows, report). With the fallback "drop" a row with a failed piece is left out.

    The report counts reasons per piece, before any row is dropped; `fallback_rate` is failed / refined pieces, null when none was refined.
    """
    generations = {generation.id: generation for generation in results}
    thinking = ThinkingFormat(**spec["thinking"]) if spec.get("thinking") else None
    filters, bans = spec.get("filters", FILTERS), read_ban_list(spec["meta_thinking"])
    refusals, lost = read_yaml(spec["refusal_phrases"]), 0
    counts = {piece: Counter() for piece in PIECES}
    tokens = {piece: Counter() for piece in PIECES}
    refined, dropped = [], 0
    for row in rows:
        texts, pieces = {}, {}
        for piece in PIECES:
            generation = generations.get(f"{row['id']}/{piece}")
            if generation is None:
                reason, rewrite, length = "not-refined", "", 0
            else:
                reason, rewrite = judge_piece(generation, thinking, filters, bans, row[piece])
                if reason == "ok" and piece == "answer" and lost_refusal(row, rewrite, refusals):
                    lost += 1
                    reason = "lost-refusal" if "lost-refusal" in filters else reason
                length = generation.tokens
                tokens[piece].update(prompt=generation.prompt_tokens, generated=length)
            kept = "rewrite" if reason == "ok" else "original"
            texts[piece] = rewrite if reason == "ok" else row[piece]
            pieces[piece] = {"reason": reason, "kept": kept, "tokens": length}
            counts[piece][reason] += 1
        if spec.get("fallback") == "drop" and any(piece["reason"] not in ("ok", "not-refined") for piece in pieces.values()):
            dropped += 1
            continue
        refined.append({**row, **texts, "pieces": pieces, "original": {piece: row[piece] for piece in PIECES}})
    report = {
        "rows": len(rows),
        "dropped": dropped,
        "fallback": spec.get("fallback", "original"),
        "filters": list(filters),
        "pieces": {piece: {reason: counts[piece][reason] for reason in REASONS} for piece in PIECES},
        "lost_refusals": lost,
        "fallback_rate": {**{piece: _rate([counts[piece]]) for piece in PIECES}, "overall": _rate(counts.values())},
        "tokens": {piece: {"prompt": tokens[piece]["prompt"], "generated": tokens[piece]["generated"]} for piece in PIECES},
        "prompts": {piece: template.version for piece, template in read_templates(spec).items()},
        "meta_thinking": bans.version,
    }
    return refined, report


def _rate(counts: Iterable[Counter]) -> dict:
    total = sum(counts, Counter())
    n = sum(count for reason, count in total.items() if reason != "not-refined")
    failed = n - total["ok"]
    return {"failed": failed, "n": n, "rate": failed / n if n else None}
