"""Deciding in the report, in a real browser: keys, buttons, undo, what is kept, the file."""

from __future__ import annotations

import dataclasses
import json

import pytest

from noiseaudit.auditing import audit
from noiseaudit.clean_stage import clean_dataset, read_audit_plan
from noiseaudit.loaders import load as load_data
from noiseaudit.plan_files import read_decisions
from noiseaudit.report import ClassSummary, Copy, CopyGroup, ReportDocument, Suspect, write_report

pytest.importorskip("selenium")
from selenium.webdriver.common.action_chains import ActionChains  # after the check
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from tests._browser import NEEDS_CHROMIUM, chromium, click, png, resize

pytestmark = NEEDS_CHROMIUM

HOSTILE = "</script><script>window.pwned=1</script> \"'& \u202eodd\r\n two  spaces "
NAMES = ("cat", HOSTILE, "dog", "never seen")
COUNT = 50  # more than the page shows at first
DATA, LABELS = "a1" * 16, "b2" * 16


def suspects(count=COUNT):
    """Rank i + 1 has id 100 - i, is given cat and suggested the hostile name, by turns."""
    return tuple(
        Suspect(
            rank=i + 1,
            sample_id=100 - i,
            source=f"{i}.png",
            given_label=NAMES[i % 2],
            suggested_label="" if i == 4 else NAMES[1 - i % 2],
            suspicion=5.0 - i / 1000,
            is_label_issue=True,
            reason="",
            thumbnail=png(i % 256),
        )
        for i in range(count)
    )


def document(**changes):
    copies = (Copy(100, "0.png", "cat"), Copy(7, "copy.png", HOSTILE))
    values = {
        "title": "pets",
        "headline": "50 of 100 labels look wrong.",
        "detector": "cumulative_loss",
        "examples": 100,
        "issues": 50,
        "suspects": suspects(),
        "classes": (ClassSummary("cat", 50, 25), ClassSummary(HOSTILE, 50, 25)),
        "groups": (CopyGroup(3, "exact", False, False, "", copies),),
        "copies": (("groups", 1), ("conflicts", 0), ("leaks", 0), ("leaks_alone", 0), ("spare", 1)),
        "data_digest": DATA,
        "labels_digest": LABELS,
        "class_names": NAMES,
    }
    return ReportDocument(**(values | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("review")


@pytest.fixture(scope="module")
def browser(folder):
    yield from chromium(folder)


@pytest.fixture(scope="module")
def address(folder):
    write_report(document(), folder / "report.html")
    return (folder / "report.html").as_uri()


@pytest.fixture
def page(browser, address):
    resize(browser, 1280)
    browser.get(address)
    browser.execute_script("localStorage.clear()")
    browser.get(address)
    browser.get_log("browser")
    yield browser
    assert browser.execute_script("return typeof window.pwned") == "undefined"
    assert browser.get_log("browser") == []


def press(page, *keys):
    actions = ActionChains(page, duration=0)
    for key in keys:
        actions.send_keys(key)
    actions.perform()


def text(page, name):
    return page.find_element(By.ID, name).text


def push(page, name):
    click(page, page.find_element(By.ID, name))


def button(page, rank, action):
    return page.find_element(By.CSS_SELECTOR, f".card[data-rank='{rank}'] [data-action={action}]")


def decisions(page):
    """Action by rank of the decided cards, as the page shows it."""
    cards = "return [...document.querySelectorAll('.card')]"
    found = page.execute_script(f"{cards}.map(c => [c.dataset.rank, c.dataset.decision])")
    return {int(rank): action for rank, action in found if action}


def current(page):
    found = page.find_elements(By.CSS_SELECTOR, ".card.current")
    assert len(found) <= 1
    return int(found[0].get_attribute("data-rank")) if found else None


def saved(page, folder):
    """What "Save decisions" writes: the text."""
    path = folder / "decisions.json"
    path.unlink(missing_ok=True)
    push(page, "save")
    WebDriverWait(page, 30).until(lambda _: path.exists())
    return path.read_bytes().decode("utf-8")


def load(page, folder, content):
    path = folder / "other.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    page.execute_script("document.getElementById('message').textContent = ''")
    page.find_element(By.ID, "file").send_keys(str(path))
    WebDriverWait(page, 30).until(lambda _: text(page, "message"))
    return text(page, "message")


def decision(sample_id, action, new_label="", given="cat"):
    return {
        "sample_id": sample_id,
        "given_label": given,
        "action": action,
        "new_label": new_label,
    }


def file(*entries, **changes):
    head = {"format": 1, "kind": "noiseaudit decisions", "data": DATA, "labels": LABELS}
    return head | changes | {"decisions": list(entries)}


def test_keys_decide_and_go_on(page):
    assert text(page, "progress") == "0 of 50 reviewed, 0 wrong so far"
    press(page, "k")  # nothing is outlined yet, so nothing is decided
    assert (current(page), decisions(page)) == (1, {})
    press(page, "k", "x", "r", "l")
    assert decisions(page) == {1: "keep", 2: "remove", 3: "remove", 4: "relabel"}
    assert (current(page), text(page, "progress")) == (5, "4 of 50 reviewed, 3 wrong so far")
    assert page.execute_script("return document.activeElement.dataset.rank") == "5"
    press(page, Keys.ARROW_DOWN, Keys.ARROW_RIGHT, "j", Keys.ARROW_UP, Keys.ARROW_LEFT)
    assert current(page) == 6
    press(page, Keys.ARROW_LEFT, *[Keys.ARROW_UP] * 6, "x")
    assert decisions(page)[1] == "remove"  # anew, from keep
    assert text(page, "progress") == "4 of 50 reviewed, 4 wrong so far"


def test_keys_reach_the_cards_that_are_not_shown_yet(page):
    press(page, *["j"] * 41)
    assert (current(page), text(page, "showing")) == (41, "Showing 50 of 50")
    press(page, *["j"] * 20)
    assert current(page) == 50


def test_a_held_key_and_a_card_off_the_screen_decide_nothing(page):
    press(page, "j")
    page.execute_script(
        "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'k', repeat: true}));"
        "document.activeElement.blur(); window.scrollTo(0, document.body.scrollHeight)"
    )
    press(page, "x")
    assert decisions(page) == {}
    press(page, "x")  # now it is on the screen
    assert decisions(page) == {1: "remove"}


@pytest.mark.parametrize("modifier", [Keys.CONTROL, Keys.ALT, Keys.SHIFT])
def test_keys_with_modifiers_are_left_alone(page, modifier):
    press(page, "j")
    ActionChains(page).key_down(modifier).send_keys("x").key_up(modifier).perform()
    assert (current(page), decisions(page)) == (1, {})


def test_keys_are_ignored_while_typing_and_in_a_dialog(page):
    press(page, "j")
    page.find_element(By.ID, "search").send_keys("xkl1")
    page.find_element(By.ID, "sort").send_keys("r")
    press(page, "?")
    assert decisions(page) == {}
    page.find_element(By.ID, "only-issues").send_keys("?")
    assert page.find_element(By.ID, "keys").is_displayed()
    press(page, "k")
    press(page, Keys.ESCAPE)
    assert not page.find_element(By.ID, "keys").is_displayed()
    assert decisions(page) == {}


def test_buttons_decide_and_take_back(page):
    click(page, button(page, 2, "keep"))
    click(page, button(page, 3, "relabel"))
    assert decisions(page) == {2: "keep", 3: "relabel"}
    assert current(page) == 3
    assert button(page, 2, "keep").get_attribute("aria-pressed") == "true"
    click(page, button(page, 2, "keep"))
    assert decisions(page) == {3: "relabel"}
    assert button(page, 2, "keep").get_attribute("aria-pressed") == "false"
    assert text(page, "progress") == "1 of 50 reviewed, 1 wrong so far"


def test_any_class_can_be_chosen_the_suggested_one_first(page):
    listed = "return [...document.getElementById('class-list').options].map(o => o.textContent)"
    chosen = "return document.getElementById('class-list').selectedOptions[0].textContent"
    click(page, button(page, 1, "choose"))
    assert sorted(page.execute_script(listed)) == sorted(NAMES[1:])
    assert page.execute_script(chosen) == HOSTILE
    page.find_element(By.ID, "class-search").send_keys("SEEN\n")
    assert decisions(page) == {1: "relabel"}
    assert button(page, 1, "relabel").text.endswith("never seen")
    press(page, *["j"] * 4, "l")  # nothing is suggested for rank 5
    assert page.find_element(By.ID, "choose-class").is_displayed()
    press(page, Keys.ESCAPE)
    press(page, "c", "d", Keys.ENTER)
    assert decisions(page) == {1: "relabel", 5: "relabel"}
    assert button(page, 5, "relabel").text.endswith("dog")
    assert current(page) == 6


def test_undo_goes_back_step_by_step_also_after_a_reload(page):
    press(page, "j", "k", "x", Keys.ARROW_UP, "k", "u")
    assert (current(page), decisions(page)) == (2, {1: "keep", 2: "remove"})
    page.refresh()
    press(page, "u")
    assert (current(page), decisions(page)) == (2, {1: "keep"})
    push(page, "undo")
    push(page, "undo")
    assert decisions(page) == {}
    assert text(page, "message") == "Nothing to undo."


def test_a_reload_keeps_decisions_and_goes_on_at_the_first_open_card(page):
    press(page, "j", "k", "l")
    page.refresh()
    assert decisions(page) == {1: "keep", 2: "relabel"}
    assert text(page, "progress") == "2 of 50 reviewed, 1 wrong so far"
    press(page, "j")
    assert current(page) == 3


def test_another_tab_of_the_same_report_follows(page):
    first = page.current_window_handle
    address = page.current_url
    page.switch_to.new_window("tab")
    page.get(address)
    press(page, "j", "x")
    page.close()
    page.switch_to.window(first)
    WebDriverWait(page, 30).until(lambda _: decisions(page) == {1: "remove"})
    assert text(page, "progress") == "1 of 50 reviewed, 1 wrong so far"


def test_saved_file_holds_what_counts_in_the_order_in_which_it_was_decided(page, folder):
    press(page, "j", "k", "l", "k", "x", Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    press(page, Keys.ARROW_LEFT, Keys.ARROW_LEFT, "x")  # rank 1 again
    click(page, button(page, 3, "keep"))  # and rank 3 taken back
    content = saved(page, folder)
    assert json.loads(content) == file(
        decision(99, "relabel", "cat", HOSTILE),
        decision(97, "remove", given=HOSTILE),
        decision(100, "remove"),
    )
    read = read_decisions(folder / "decisions.json", {"inputs": DATA, "labels": LABELS})
    assert [item["sample_id"] for item in read] == [99, 97, 100]
    assert "decisions.json" in text(page, "message")


def test_a_loaded_file_adds_to_what_was_decided_and_undo_takes_it_all_back(page, folder):
    press(page, "j", "k")
    entries = (decision(100, "relabel", HOSTILE), decision(98, "remove"), decision(1, "keep"))
    assert load(page, folder, file(*entries)) == "Loaded 3 decisions."
    assert decisions(page) == {1: "relabel", 3: "remove"}
    progress = "2 of 50 reviewed, 2 wrong so far (1 more not on this page)"
    assert text(page, "progress") == progress
    page.refresh()
    assert text(page, "progress") == progress
    assert json.loads(saved(page, folder)) == file(*entries)
    assert load(page, folder, file(decision(99, "keep", given=HOSTILE))) == "Loaded 1 decision."
    press(page, "u")
    assert json.loads(saved(page, folder)) == file(*entries)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "it is no JSON file"),
        ("[1]", "it holds no decisions of noiseaudit"),
        (file(format=2), "it has format 2, and this page reads format 1"),
        (file(data="c3"), "it belongs to other data"),
    ],
)
def test_files_that_cannot_be_used_change_nothing(page, folder, content, message):
    press(page, "j", "k")
    assert load(page, folder, content) == f"The file cannot be used: {message}."
    assert decisions(page) == {1: "keep"}


def test_entries_that_do_not_fit_are_left_out_and_counted(page, folder):
    bad = (
        decision(100, "remove", given="dog"),
        decision(100, "delete"),
        decision(100, "relabel", "fish"),
        decision(100, "relabel", "cat"),
        decision(100, "relabel", ""),
        decision("100", "keep"),
        decision(1.5, "keep"),
        3,
        None,
    )
    message = load(page, folder, file(decision(98, "keep"), *bad))
    assert message == "Loaded 1 decision; 9 left out, which do not fit this data and its labels."
    assert decisions(page) == {3: "keep"}
    off_page = file(decision(1, "keep"), decision(98, "remove"), labels="c3")
    assert load(page, folder, off_page).startswith("Loaded 1 decision; 1 left out")


def test_clear_asks_first_and_can_be_undone(page):
    press(page, "j", "k", "x")
    push(page, "clear-decisions")
    page.switch_to.alert.dismiss()
    assert decisions(page) == {1: "keep", 2: "remove"}
    push(page, "clear-decisions")
    page.switch_to.alert.accept()
    assert decisions(page) == {}
    push(page, "undo")
    assert decisions(page) == {1: "keep", 2: "remove"}


def test_cards_not_yet_reviewed_stay_until_the_filter_is_set_again(page):
    press(page, "j", "k", "k")
    push(page, "only-open")
    assert text(page, "showing") == "Showing 40 of 50 (48 match)"
    press(page, "x")
    assert (current(page), decisions(page)[3]) == (4, "remove")
    assert button(page, 3, "remove").is_displayed()
    push(page, "only-open")
    push(page, "only-open")
    assert text(page, "showing") == "Showing 40 of 50 (47 match)"
    press(page, "u")  # of a card that the filter hides
    assert text(page, "message") == "Undone on example 98, which is not shown."
    assert text(page, "progress") == "2 of 50 reviewed, 0 wrong so far"


@pytest.mark.parametrize(
    "broken",
    [
        "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no'); }})",
        "Storage.prototype.setItem = () => { throw new DOMException('full'); }",
    ],
)
def test_without_storage_the_page_says_so_and_goes_on(page, folder, broken):
    command = "Page.addScriptToEvaluateOnNewDocument"
    script = page.execute_cdp_cmd(command, {"source": broken})
    try:
        page.refresh()
        press(page, "j", "k", "x", "u")
        assert decisions(page) == {1: "keep"}
        warning = "This browser does not let the page keep decisions"
        assert text(page, "message").startswith(warning)
        assert json.loads(saved(page, folder)) == file(decision(100, "keep"))
    finally:
        page.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_what_cannot_be_read_in_the_storage_is_told(page):
    page.execute_script(f"localStorage.setItem('noiseaudit decisions {DATA} {LABELS}', '{{')")
    page.refresh()
    assert "cannot be read" in text(page, "message")
    press(page, "j", "k")
    page.refresh()
    assert (decisions(page), text(page, "message")) == ({1: "keep"}, "")


def test_a_copy_is_linked_to_its_group(page):
    link = page.find_element(By.CSS_SELECTOR, ".card[data-rank='1'] .copy-link")
    assert link.find_element(By.XPATH, "..").text.endswith("(id 7)")
    click(page, link)
    assert page.find_element(By.ID, "group-3").is_displayed()


def test_controls_are_large_enough_to_touch_on_a_phone(page):
    resize(page, 360)
    press(page, "j", "k")
    small = (
        "return [...document.querySelectorAll('.review button, .decide button')]"
        ".map(b => b.getBoundingClientRect()).filter(b => b.width < 40 || b.height < 44).length"
    )
    assert page.execute_script(small) == 0
    widths = "return [document.documentElement.scrollWidth, window.innerWidth]"
    assert page.execute_script(widths) == [360, 360]


def test_two_thousand_cards_are_reviewed_with_one_listener_and_few_laid_out(browser, folder):
    many = document(suspects=suspects(2000), groups=(), copies=())
    many = dataclasses.replace(many, data_digest="many")
    write_report(many, folder / "many.html")
    browser.get((folder / "many.html").as_uri())
    assert len(browser.find_elements(By.CLASS_NAME, "decide")) == 40
    press(browser, "j", "k", "x", "l")
    assert text(browser, "progress") == "3 of 2000 reviewed, 2 wrong so far"
    push(browser, "show-all")
    assert len(browser.find_elements(By.CLASS_NAME, "decide")) == 2000
    click(browser, button(browser, 2000, "remove"))
    browser.refresh()
    assert text(browser, "progress") == "4 of 2000 reviewed, 3 wrong so far"


def test_what_is_decided_in_an_audits_report_is_what_clean_does(browser, folder):
    audit(load_data("digits", limit=200), out=folder / "audit", epochs=1, duplicates=False)
    before = read_audit_plan(folder / "audit")
    browser.get((folder / "audit" / "report.html").as_uri())
    ids = "return [...document.querySelectorAll('.card:not([hidden])')].map(c => c.dataset.id)"
    first = [int(sample_id) for sample_id in browser.execute_script(ids)[:4]]
    press(browser, "j", "k", "x")
    click(browser, button(browser, 3, "choose"))
    browser.find_element(By.ID, "class-search").send_keys("7\n")
    click(browser, button(browser, 4, "choose"))
    browser.find_element(By.ID, "class-search").send_keys("8\n")
    saved(browser, folder)
    after = read_audit_plan(folder / "audit", decisions=folder / "decisions.json")
    rows = [list(after.ids).index(sample_id) for sample_id in first]
    assert after.actions[rows].tolist() == ["keep", "remove", "relabel", "relabel"]
    assert [after.class_names[after.new_labels[row]] for row in rows[2:]] == ["7", "8"]
    others = [row for row in range(len(after.ids)) if row not in rows]
    assert after.actions[others].tolist() == before.actions[others].tolist()
    receipt = clean_dataset(folder / "audit", folder / "clean", decisions=folder / "decisions.json")
    assert receipt.counts["relabel"] == 2
