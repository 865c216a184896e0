"""The report in a real browser: headless Chromium, wherever it and selenium are installed."""

from __future__ import annotations

import random

import pytest

from noiseaudit.report import (
    ClassSummary,
    EpochSummary,
    Histogram,
    PairSummary,
    ReportDocument,
    Suspect,
    write_report,
)

pytest.importorskip("selenium")
from selenium.webdriver.common.by import By  # after the check for selenium
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from tests._browser import NEEDS_CHROMIUM, chromium, click, png, resize

pytestmark = NEEDS_CHROMIUM

SCRIPT_NAME = "<script>window.pwned=1</script>"
LONG_NAME = "a name without end " * 8 + "Unbreakable" * 20
NAMES = ("cat", "dog", "bird", SCRIPT_NAME, LONG_NAME)
COUNT = 400


def suspects():
    """Suspect i is given NAMES[i % 5] and suggested NAMES[i % 4]; every third is no label issue."""
    ids = random.Random(0).sample(range(10_000), COUNT)
    return tuple(
        Suspect(
            rank=i + 1,
            sample_id=ids[i],
            source=f"train/folder {i % 7}/{'deep/' * 20}{i:04d}.png",
            given_label=NAMES[i % 5],
            suggested_label=NAMES[i % 4],
            suspicion=5 - i / 100,
            is_label_issue=i % 3 != 0,
            reason=f"Never learned as {NAMES[i % 5]}.",
            split="train",
            thumbnail=png(i % 256) if i % 2 else "",
            features=() if i % 2 else (("a feature with a long name " * 3, -3.25), ("b", 1.0)),
            curve=(0.1, 0.3, None, 0.2 + i % 5 / 10),
            scores=(("cumulative_loss", 5 - i / 100), ("el2n", 0.5)),
        )
        for i in range(COUNT)
    )


def document():
    many = tuple(ClassSummary(f"class {i}", 100, i % 40) for i in range(60))
    return ReportDocument(
        title=f"pets {SCRIPT_NAME} {LONG_NAME}",
        headline="266 of 10,000 labels look wrong.",
        detector="cumulative_loss",
        examples=10_000,
        issues=266,
        facts=(("Source", "/data/" + "long" * 60),),
        notes=(f"Class {SCRIPT_NAME} has one example.",),
        classes=(*(ClassSummary(name, 100, 50) for name in NAMES), *many),
        pairs=(PairSummary("cat", "dog", 9), PairSummary(SCRIPT_NAME, LONG_NAME, 5)),
        suspects=suspects(),
        histograms=(Histogram("Loss", "cumulative_loss", (0.0, 1.0, 2.0), (9000, 1000), (0, 9)),),
        training=tuple(EpochSummary(i, 1 / i, 1 - 1 / i) for i in range(1, 21)),
        settings=(("command", "noiseaudit audit " * 20),),
        version="0.1.0",
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    yield from chromium(tmp_path_factory.mktemp("chromium"))


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(document(), path)
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    resize(browser, 1280)
    browser.get_log("browser")
    browser.get(address)
    yield browser
    assert browser.get_log("browser") == []


def visible(page, field="rank"):
    """A data attribute of each visible card, in the order of the page."""
    script = "return [...document.querySelectorAll('.card')].filter(c => c.offsetParent !== null)"
    return page.execute_script(f"{script}.map(c => c.dataset[arguments[0]])", field)


def showing(page):
    return page.find_element(By.ID, "showing").text


def choose(page, control, text):
    Select(page.find_element(By.ID, control)).select_by_visible_text(text)


def all_ranks(condition):
    return [str(s.rank) for s in suspects() if condition(s)]


def test_page_starts_with_the_first_ranks_and_grows_on_demand(page):
    assert showing(page) == "Showing 40 of 400"
    assert visible(page) == [str(rank) for rank in range(1, 41)]
    click(page, page.find_element(By.ID, "show-more"))
    WebDriverWait(page, 30).until(lambda _: showing(page) == "Showing 80 of 400")
    assert page.execute_script("return document.activeElement.dataset.rank") == "41"
    click(page, page.find_element(By.ID, "show-all"))
    assert visible(page) == [str(rank) for rank in range(1, COUNT + 1)]
    assert not page.find_element(By.ID, "more").is_displayed()


def test_filters_by_class_change_the_cards_and_the_count(page):
    choose(page, "filter-given", "cat (80)")
    expected = all_ranks(lambda s: s.given_label == "cat")
    assert visible(page) == expected[:40]
    assert showing(page) == "Showing 40 of 400 (80 match)"
    choose(page, "filter-suggested", "dog (100)")
    expected = all_ranks(lambda s: (s.given_label, s.suggested_label) == ("cat", "dog"))
    assert visible(page) == expected
    assert showing(page) == f"Showing {len(expected)} of 400"


def test_label_issues_alone(page):
    click(page, page.find_element(By.ID, "only-issues"))
    assert visible(page) == all_ranks(lambda s: s.is_label_issue)[:40]


@pytest.mark.parametrize("words", ["0123.png", "FOLDER 3/"])
def test_search_in_paths(page, words):
    page.find_element(By.ID, "search").send_keys(words)
    assert visible(page) == all_ranks(lambda s: words.lower() in s.source.lower())[:40]


def test_search_for_an_id_and_for_nothing_there(page):
    search = page.find_element(By.ID, "search")
    search.send_keys(str(suspects()[7].sample_id))
    assert "8" in visible(page)
    search.send_keys(" nothing")
    assert visible(page) == []
    assert showing(page) == "Showing 0 of 400"
    assert page.find_element(By.ID, "no-match").is_displayed()
    click(page, page.find_element(By.ID, "clear"))
    WebDriverWait(page, 30).until(lambda _: showing(page) == "Showing 40 of 400")


def test_sorting_changes_the_order(page):
    choose(page, "sort", "Sample id")
    assert visible(page, "id") == [str(i) for i in sorted(s.sample_id for s in suspects())[:40]]
    choose(page, "sort", "Given label")
    names = [e.text for e in page.find_elements(By.CSS_SELECTOR, ".card:not([hidden]) .labels dd")]
    assert SCRIPT_NAME in names[0]
    choose(page, "sort", "Suspicion")
    assert visible(page) == [str(rank) for rank in range(1, 41)]


def test_a_pair_and_a_class_of_the_tables_filter_the_gallery(page):
    click(page, page.find_element(By.CSS_SELECTOR, "#pairs tbody tr td:last-child"))
    expected = all_ranks(lambda s: (s.given_label, s.suggested_label) == ("cat", "dog"))
    assert visible(page) == expected
    top = page.execute_script(
        "return document.getElementById('suspects').getBoundingClientRect().top"
    )
    assert 0 <= top < 100
    row = page.find_element(By.XPATH, "//section[@id='classes']//a[@title='dog']")
    row.send_keys("\n")
    assert visible(page) == all_ranks(lambda s: s.given_label == "dog")[:40]


def test_a_pair_without_suspects_on_the_page_says_so(page):
    click(page, page.find_elements(By.CSS_SELECTOR, "#pairs tbody a")[1])
    assert visible(page) == []
    assert page.find_element(By.ID, "no-match").is_displayed()


def test_class_table_sorts_by_column_across_the_fold(page):
    def first():
        cells = page.find_elements(By.CSS_SELECTOR, "#classes tbody tr:first-child > *")
        return [cell.text for cell in cells[:3]]

    def sort_by(column):
        click(page, page.find_elements(By.CSS_SELECTOR, "#classes thead button")[column])

    assert first() == ["cat", "100", "50"]
    sort_by(2)
    assert first()[2] == "50"
    sort_by(2)
    assert first() == ["class 0", "100", "0"]
    sort_by(0)
    (sorted_by,) = page.find_elements(By.CSS_SELECTOR, "#classes th[aria-sort]")
    assert (sorted_by.text, sorted_by.get_attribute("aria-sort")) == ("Class", "ascending")
    bodies = page.find_elements(By.CSS_SELECTOR, "#classes tbody")
    rows = [len(body.find_elements(By.TAG_NAME, "tr")) for body in bodies]
    assert rows == [30, 35]


@pytest.mark.parametrize("width", [360, 390, 820, 1280])
def test_no_width_scrolls_sideways(page, width):
    resize(page, width)
    click(page, page.find_element(By.ID, "show-all"))
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    widths = "return [document.documentElement.scrollWidth, window.innerWidth]"
    scrolled, inner = page.execute_script(widths)
    assert inner == width
    assert scrolled <= inner


def test_names_never_run_and_pictures_load(page):
    assert page.execute_script("return typeof window.pwned") == "undefined"
    assert len(page.find_elements(By.TAG_NAME, "script")) == 1
    # Pictures load when they come near: on a busy machine the first one is not there at once.
    shown = "[...document.querySelectorAll('.card img')].find(img => img.offsetParent !== null)"
    page.execute_script(f"{shown}.scrollIntoView()")
    loaded = f"return {shown}.naturalWidth"
    WebDriverWait(page, 30).until(lambda _: page.execute_script(loaded) == 8)


def test_policy_stops_a_script_that_got_onto_the_page(page):
    page.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.pwned = 1';"
        "document.body.append(s);"
    )
    assert page.execute_script("return typeof window.pwned") == "undefined"
    (entry,) = page.get_log("browser")
    assert "Content Security Policy" in entry["message"]


def test_without_scripts_everything_is_there(browser, address):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(address)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert len(visible(browser)) == COUNT
    assert not browser.find_element(By.ID, "toolbar").is_displayed()


def test_controls_and_pictures_have_names(page):
    unnamed = (
        "return [...document.querySelectorAll('select, input')].filter(e => !e.labels[0]).length"
        " + [...document.querySelectorAll('img:not([alt]), thead th:not([scope])')].length"
        " + [...document.querySelectorAll('svg:not([role=img])')].length"
    )
    assert page.execute_script(unnamed) == 0
    levels = "return [...document.querySelectorAll('h1, h2, h3')].map(h => h.tagName)"
    assert page.execute_script(levels)[:3] == ["H1", "H2", "H2"]
