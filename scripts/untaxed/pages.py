"""HTML pages that show one table: nothing is loaded from elsewhere, and on a narrow screen every row becomes a card."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

NUMBER = re.compile(r"^[+−-]?[\d.]+(?: %)?$")
WIDE = 10  # columns; in a wider table those that never change are told once, and the rest stand closer
INTERVAL = re.compile(r"^(\S+) (\[[^\[\]]*\])$")
INTERVAL_CLASS = ' class="interval"'  # keeps both ends of an interval on one line
STYLE = """\
body { font: 15px/1.45 system-ui, sans-serif; color: #1e293b; background: #fff; margin: 1.5rem; }
h1 { font-size: 1.3rem; margin: 0 0 .3rem; }
p { margin: .3rem 0 1rem; max-width: 60rem; color: #475569; }
table { border-collapse: collapse; }
th, td { padding: .4rem .7rem; vertical-align: top; text-align: left; border-bottom: 1px solid #e2e8f0; }
th { position: sticky; top: 0; background: #f1f5f9; font-size: .85rem; vertical-align: bottom; }
tbody tr:hover { background: #f8fafc; }
.wide { font-size: 12px; }
.wide th, .wide td { padding: .3rem .25rem; }
.wide th { font-size: 11px; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td .number, .interval { white-space: nowrap; }
small { display: block; color: #64748b; font-size: .8rem; }
.verdict { font-weight: 600; border-radius: .3rem; padding: .1rem .45rem; white-space: nowrap; background: #e2e8f0; color: #334155; }
.supported { background: #dcfce7; color: #166534; }
.contradicted { background: #fee2e2; color: #991b1b; }
.inconclusive { background: #fef3c7; color: #854d0e; }
@media (max-width: 700px) {
  body { margin: .8rem; }
  table, tbody, tr, td { display: block; }
  thead { display: none; }
  tr { border: 1px solid #e2e8f0; border-radius: .4rem; margin-bottom: .8rem; }
  td > div { display: flex; justify-content: space-between; gap: 1.2rem; text-align: right; }
  td > div::before { content: attr(data-label); color: #64748b; text-align: left; flex: none; max-width: 45%; }
}
"""


def page(title: str, introduction: str, records: Sequence[Mapping[str, Any]]) -> str:
    """A page with a table: a row per record, a column per key. Plain text is escaped; `Markup` values stand as they are."""
    import pandas

    columns = list(dict.fromkeys(key for record in records for key in record))
    same = {}
    if len(columns) > WIDE and len(records) > 1:
        same = {column: values.pop() for column in columns if len(values := {record.get(column, "") for record in records}) == 1}
        columns = [column for column in columns if column not in same]
    rows = [[_cell(column, record.get(column, "")) for column in columns] for record in records]
    heads = [_head(column, [record.get(column, "") for record in records]) for column in columns]
    body = "<p>Nothing was measured.</p>"
    if rows:
        with pandas.option_context("display.max_colwidth", None):
            body = pandas.DataFrame(rows, columns=heads).to_html(
                index=False, escape=False, border=0, justify="unset", classes="wide" if len(columns) > WIDE else None
            )
    told = "; ".join(f"{_words(column)} {escape(str(value)) or '–'}" for column, value in same.items())
    told = f"<p>In every row: {told}.</p>\n" if told else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f"<p>{escape(introduction)}</p>\n{told}{body}\n</body>\n</html>\n"
    )


class Markup(str):
    """Text that is HTML already."""


def badge(word: str) -> Markup:
    """The word of a verdict in its colour."""
    return Markup(f'<span class="verdict {escape(word)}">{escape(word)}</span>')


def under(text: Any, *lines: str) -> Markup:
    """A text with small lines under it; empty ones are left out."""
    small = [f"<small{INTERVAL_CLASS * line.startswith('[')}>{escape(line)}</small>" for line in lines if line]
    return Markup(f"<span>{escape(str(text))}{''.join(small)}</span>")


def _words(column: str) -> str:
    return escape(column.replace("_", " "))


def _is_number(value: Any) -> bool:
    text = str(value)
    return text in ("–", "") or bool(NUMBER.match(text) or (INTERVAL.match(text) and NUMBER.match(text.partition(" ")[0])))


def _head(column: str, values: Sequence[Any]) -> str:
    return f'<div class="number">{_words(column)}</div>' if all(map(_is_number, values)) else _words(column)


def _cell(column: str, value: Any) -> str:
    kind = ""
    if _is_number(value):
        kind, value = ' class="number"', str(value).replace("-", "−")
    if match := INTERVAL.match(str(value)):
        value = under(*match.groups())
    text = value if isinstance(value, Markup) else f"<span>{escape(str(value))}</span>"
    return f'<div{kind} data-label="{_words(column)}">{text}</div>'
