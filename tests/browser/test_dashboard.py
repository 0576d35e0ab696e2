"""The dashboard as a person sees it, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.commands import hpo, read
from tests.web.running import Running, running

TOKEN = "correct-horse-battery"
SEARCH = ("optimize", "--study", "digits", "--trials", "6", "--set", "training.epochs=2")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database in which digits was searched."""
    folder = tmp_path_factory.mktemp("searched")
    hpo(folder, *SEARCH)
    return folder


@pytest.fixture
def dashboard(browser: Chrome, searched: Path) -> Iterator[Running]:
    """Open to this machine; where there is no browser it is not started."""
    with running(searched) as found:
        yield found


@pytest.fixture
def locked(browser: Chrome, searched: Path) -> Iterator[Running]:
    """With a token."""
    with running(searched, HPO_DASHBOARD_TOKEN=TOKEN) as found:
        yield found


def body(browser: Chrome) -> str:
    # By a script: an element that was found may belong to a page that has gone by now.
    return str(browser.execute_script("return document.body ? document.body.innerText : ''"))


def until_it_shows(browser: Chrome, *texts: str) -> None:
    """Wait until the page has all of these."""
    try:
        WebDriverWait(browser, 120).until(lambda _: all(one in body(browser) for one in texts))
    except Exception as error:
        raise AssertionError(f"{texts} not in:\n{body(browser)}") from error


def complaints(browser: Chrome) -> list[str]:
    """The errors in the console since the last call; a breach of the policy is one."""
    entries = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [
        entry["message"]
        for entry in entries
        # The rest is what a GPU made of software says about its speed.
        if entry["level"] == "SEVERE" or "Policy" in entry["message"]
    ]


def test_a_searched_study_is_shown_whole(
    browser: Chrome, dashboard: Running, searched: Path, tmp_path: Path
) -> None:
    best = read(searched, "best", "--study", "digits")
    browser.get(dashboard.address)
    until_it_shows(browser, "1. digits", "MAXIMIZE")
    browser.find_element(By.XPATH, "//a[contains(@href, '/studies/1')]").click()
    until_it_shows(browser, f"Best Trial (number={best['number']})", str(best["value"]))
    until_it_shows(browser, "Hyperparameter Importance", "mlp.dropout", "Timeline")
    # Plotly draws what it can only draw if the policy lets it.
    drawn = "return document.querySelectorAll('.js-plotly-plot .main-svg').length"
    WebDriverWait(browser, 120).until(lambda _: browser.execute_script(drawn) > 2)
    browser.save_screenshot(str(tmp_path / "study.png"))
    browser.get(f"{dashboard.address}dashboard/studies/1/trials?numbers={best['number']}")
    until_it_shows(browser, "6 Trials", "Trial 5", "hpo:config", "hpo:curve", "hpo:outcome")
    browser.save_screenshot(str(tmp_path / "trials.png"))
    for page in ("analytics", "note", "smartSelection"):
        browser.get(f"{dashboard.address}dashboard/studies/1/{page}")
        until_it_shows(browser, "digits (id=1)")
    assert complaints(browser) == []


DELETE = """
const done = arguments[arguments.length - 1];
fetch("/api/studies/1", {method: "DELETE", body: "{}"})
  .then(reply => reply.json().then(body => done([reply.status, body.reason])));
"""


def test_the_page_itself_cannot_delete_the_study(browser: Chrome, dashboard: Running) -> None:
    browser.get(dashboard.address)
    until_it_shows(browser, "1. digits")
    status, reason = browser.execute_async_script(DELETE)
    assert status == 405
    assert "--allow-writes" in reason
    browser.refresh()
    until_it_shows(browser, "1. digits")


def test_with_writes_the_page_can_save_a_note(browser: Chrome, searched: Path) -> None:
    save = """
    const done = arguments[arguments.length - 1];
    fetch("/api/studies/1/note", {
      method: "PUT", headers: {"Content-Type": "application/json"},
      body: JSON.stringify({version: 1, body: "seen in a browser"}),
    }).then(reply => done(reply.status));
    """
    with running(searched, "--allow-writes") as dashboard:
        browser.get(dashboard.address)
        until_it_shows(browser, "1. digits")
        assert browser.execute_async_script(save) == 204
        browser.get(f"{dashboard.address}dashboard/studies/1/note")
        until_it_shows(browser, "seen in a browser")


def enter(browser: Chrome, token: str) -> None:
    browser.find_element(By.NAME, "token").send_keys(token)
    browser.find_element(By.TAG_NAME, "button").click()


def test_the_login_opens_to_the_token_alone(
    browser: Chrome, locked: Running, tmp_path: Path
) -> None:
    browser.get(f"{locked.address}dashboard/studies/1")
    assert browser.current_url == f"{locked.address}login"
    assert browser.switch_to.active_element.get_attribute("name") == "token"
    assert complaints(browser) == []
    enter(browser, "not-the-right-token")
    until_it_shows(browser, "This is not the token.")
    browser.save_screenshot(str(tmp_path / "login.png"))
    assert [one for one in complaints(browser) if "401" not in one] == []
    enter(browser, TOKEN)
    until_it_shows(browser, "1. digits")
    assert TOKEN not in browser.current_url
    (session,) = browser.get_cookies()
    assert (session["httpOnly"], session["sameSite"]) == (True, "Strict")
    assert TOKEN not in session["value"]
    assert browser.execute_script("return document.cookie") == ""
    browser.get(f"{locked.address}dashboard/studies/1")
    until_it_shows(browser, "Best Trial")
    assert complaints(browser) == []
    assert TOKEN not in browser.page_source


def test_a_foreign_page_can_neither_frame_it_nor_send_for_it(
    browser: Chrome, dashboard: Running, tmp_path: Path
) -> None:
    page = tmp_path / "foreign.html"
    page.write_text(f"""<!DOCTYPE html><title>foreign</title>
    <iframe src="{dashboard.address}dashboard"></iframe>
    <img src="{dashboard.address}favicon.ico" onerror="document.title = 'no picture'">""")
    browser.get(page.as_uri())
    WebDriverWait(browser, 60).until(lambda _: browser.title == "no picture")
    assert any("frame-ancestors" in one for one in complaints(browser))
