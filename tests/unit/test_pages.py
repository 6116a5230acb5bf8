"""Pages that show a table, read with Python's own HTML parser."""

from html.parser import HTMLParser

from untaxed.pages import WIDE, badge, page, under

ROWS = [{"method": "dgr", "refusal_rate": "90.0 [85.1, 94.0]", "n": 10}, {"method": "a < b & c", "refusal_rate": "–", "n": 48}]


class Cells(HTMLParser):
    """The texts of the cells, row by row, and every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data.strip() + " "


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in row] for row in Cells(text).rows]


def test_a_page_shows_every_cell_and_escapes_what_is_no_markup():
    text = page("Main <results>", "A caption.", ROWS)
    assert rows(text) == [["method", "refusal rate", "n"], ["dgr", "90.0 [85.1, 94.0]", "10"], ["a < b & c", "–", "48"]]
    assert "<h1>Main &lt;results&gt;</h1>" in text


def test_numbers_are_aligned_and_every_cell_knows_its_column():
    cells = [attributes for tag, attributes in Cells(page("t", "", ROWS)).tags if tag == "div" and "data-label" in attributes]
    assert [cell["data-label"] for cell in cells[:3]] == ["method", "refusal rate", "n"]
    assert ["class" in cell for cell in cells] == [False, True, True] * 2


def test_a_page_loads_nothing():
    tags = Cells(page("t", "", ROWS)).tags
    assert not [attributes for tag, attributes in tags if tag in ("script", "link", "img") or {"src", "href"} & set(attributes)]


def test_a_wide_table_tells_columns_that_never_change_once():
    wide = [{f"column_{number}": number * row for number in range(WIDE + 1)} for row in (1, 2)]
    text = page("t", "", wide)
    assert "In every row: column 0 0." in text
    assert rows(text)[0] == [f"column {number}" for number in range(1, WIDE + 1)]


def test_a_page_without_rows_says_so():
    assert "Nothing was measured." in page("t", "", [])


def test_a_verdict_has_the_class_of_its_colour_and_small_lines_that_are_empty_are_left_out():
    assert badge("not run") == '<span class="verdict not run">not run</span>'
    assert under("a<b", "", "[1, 2]", "c") == '<span>a&lt;b<small class="interval">[1, 2]</small><small>c</small></span>'
