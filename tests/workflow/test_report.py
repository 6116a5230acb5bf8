"""The HTML report of the finished smoke study, opened in a real browser."""

import base64
import csv
import re
import shutil

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium with an empty profile, from Debian's packages."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium and chromedriver on PATH (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        yield chrome


@pytest.fixture(scope="module")
def page(browser, finished):
    """The report, opened as a file as a reader would."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get((finished / "results/smoke/report.html").as_uri())
    WebDriverWait(browser, 60).until(lambda chrome: "Figures" in chrome.find_element(By.TAG_NAME, "body").text)
    return browser


def displayed(page, text: str):
    """The element with exactly this text, once it can be seen."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def found(chrome):
        return next(
            (element for element in chrome.find_elements(By.XPATH, f"//*[normalize-space(text())='{text}']") if element.is_displayed()),
            None,
        )

    return WebDriverWait(page, 30).until(found)


def body(page) -> str:
    return page.find_element("tag name", "body").text


@pytest.fixture
def figures(page):
    """The list of figures, reached by clicks from the start page."""
    page.refresh()
    displayed(page, "Figures").click()
    row_button(page, "Safety against reasoning", "eye")
    return page


def row_button(page, title: str, icon: str):
    """The button of a result in the list beside the page, once the list is there."""
    from selenium.webdriver.support.ui import WebDriverWait

    button = f"//td[normalize-space(.)='{title}']/..//a[@iconname='{icon}']"
    return WebDriverWait(page, 30).until(lambda chrome: chrome.find_elements("xpath", button))[0]


def press(page, title: str, icon: str) -> None:
    """Click a button of the list, which may still be moving into its place."""
    from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    def pressed(chrome) -> bool:
        row_button(chrome, title, icon).click()
        return True

    WebDriverWait(page, 30, ignored_exceptions=[ElementClickInterceptedException, StaleElementReferenceException]).until(pressed)


def titles(finished) -> list[str]:
    return [finished.json(f"paper_figures/smoke/{path.name}")["title"] for path in (finished / "paper_figures/smoke").glob("*.json")]


def test_the_page_introduces_the_study_and_lists_its_results(page):
    text = body(page)
    assert page.title == "Snakemake Report"
    assert "Untaxed makes reasoning models safe" in text
    assert {"Claims", "Figures", "Tables", "Workflow"} <= set(text.splitlines())


def test_a_click_on_figures_lists_every_figure_by_its_title(figures, finished):
    assert set(titles(finished)) <= {cell.text for cell in figures.find_elements("tag name", "td")}


def test_a_figure_and_its_caption_open(figures, finished):
    from selenium.webdriver.support.ui import WebDriverWait

    title = "Safety tax against distribution shift"
    press(figures, title, "eye")
    picture = "//img[contains(@src, 'filename=shift_tax.png')]"
    WebDriverWait(figures, 30).until(lambda chrome: chrome.find_elements("xpath", picture))
    image = figures.find_element("xpath", picture)
    WebDriverWait(figures, 30).until(lambda chrome: image.get_property("naturalWidth") > 500)
    assert image.size["width"] > 300
    press(figures, title, "information-circle")
    caption = finished.json("paper_figures/smoke/shift_tax.json")["caption"]
    WebDriverWait(figures, 30).until(lambda chrome: caption in " ".join(body(chrome).split()))


def shown_page(page) -> str:
    """The text that can be seen in the page that a click has opened beside the list."""
    from selenium.webdriver.support.ui import WebDriverWait

    frame = WebDriverWait(page, 30).until(lambda chrome: chrome.find_elements("tag name", "iframe"))[0]
    page.switch_to.frame(frame)
    try:
        WebDriverWait(page, 30).until(lambda chrome: chrome.find_elements("tag name", "h1"))
        return " ".join(body(page).split())
    finally:
        page.switch_to.default_content()


def test_the_first_page_leads_with_the_verdicts_and_the_results(page, finished):
    page.refresh()
    displayed(page, "Results")  # the head of the page can be reached
    text = " ".join(body(page).split())
    assert finished.json("results/smoke/claims.json")["counts"] in text
    assert all(title in text for title in titles(finished))


def test_a_link_of_the_first_page_shows_its_figure(page):
    from selenium.webdriver.support.ui import WebDriverWait

    page.refresh()
    displayed(page, "Safety tax against distribution shift").click()
    picture = "//img[contains(@src, 'filename=shift_tax.png')]"
    WebDriverWait(page, 30).until(lambda chrome: chrome.find_elements("xpath", picture))


def test_a_click_shows_the_claims_with_their_verdicts(page, finished):
    page.refresh()
    displayed(page, "Claims").click()
    claims = finished.json("results/smoke/claims.json")
    press(page, claims["counts"], "eye")
    text = shown_page(page)
    assert all(f"{claim['verdict']} {' '.join(claim['statement'].split())}" in text for claim in claims["claims"])


def test_a_click_shows_a_table(page, finished):
    page.refresh()
    displayed(page, "Tables").click()
    press(page, "Judges against human labels", "eye")
    text = shown_page(page)
    with (finished / "results/smoke/tables/judges.csv").open() as file:
        for row in csv.DictReader(file):
            assert f"{row['judge']} {row['dataset']} {row['n']} {row['accuracy']}" in text


def test_the_browser_meets_no_error(figures):
    assert [entry["message"] for entry in figures.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_report_holds_no_harmful_prompt_no_secret_and_no_path_of_this_machine(finished):
    page = (finished / "results/smoke/report.html").read_text()
    data = dict(re.findall(r'<script id="([\w-]+)">(.*?)</script>', page, flags=re.DOTALL))
    assert {"workflow-desc", "results", "rules"} <= set(data)
    assert finished.secret not in page
    files = [base64.b64decode(text) for text in re.findall(r"base64,([A-Za-z0-9+/=]+)", data["results"])]
    results = [*(finished / "paper_figures/smoke").glob("*.png"), *(finished / "results/smoke/tables").glob("*.html")]
    assert len(files) == len(results) > 10
    shown = "\n".join([*(text for name, text in data.items() if name != "packages"), *(file.decode(errors="replace") for file in files)])
    assert "safety tax" in shown
    assert str(finished.folder) not in shown
    for row in finished.records("results/smoke/datasets/organism-harmful/rows.jsonl"):
        assert row["prompt"] not in shown, row["id"]
