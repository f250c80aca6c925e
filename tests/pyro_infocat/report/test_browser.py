"""``report.html`` as a browser shows it; skipped where there is no chromium with its driver."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pyro_infocat.report import page
from tests.pyro_infocat.report.pieces import SETTINGS, examined, result, sure

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver"),
]

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
)

LOGS = {"browser": "ALL", "performance": "ALL"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", LOGS)
    # With the driver's path, selenium looks for none and asks no network.
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders below: so many categories and labels whose names are not for HTML."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "figures").mkdir()
    Image.new("L", (1500, 400), 200).save(folder / "figures" / "training.png")
    labels = [n % 3 for n in range(90)]
    classes = ["<script>document.title = 'taken'</script>", "two" * 30, "<img src=x onerror=a()>"]
    of = examined(sure([n % 12 for n in range(90)], 12), labels, classes)
    page.write(of, result(of), SETTINGS, folder)
    return folder / page.REPORT


@pytest.fixture
def shown(browser: Any, written: Path) -> Any:
    for log in LOGS:
        browser.get_log(log)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get(written.as_uri())
    return browser


def test_nothing_is_asked_of_a_network_and_nothing_goes_wrong(shown: Any) -> None:
    messages = [json.loads(one["message"])["message"] for one in shown.get_log("performance")]
    # The browser's own first page, still loading, asks for what is its own.
    asked = [
        one["params"]["request"]["url"]
        for one in messages
        if one["method"] == "Network.requestWillBeSent"
        and one["params"]["documentURL"] == shown.current_url
    ]
    assert asked.count(shown.current_url) == 1
    assert all(url == shown.current_url or url.startswith("data:") for url in asked)
    assert shown.get_log("browser") == []
    assert shown.title == "digits: what the run learned"


def test_every_picture_is_there(shown: Any) -> None:
    sizes = shown.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.alt])"
    )
    assert len(sizes) == 1 + 12 * (1 + 3 * 5)
    assert all(complete and width > 0 and alt for complete, width, alt in sizes)


def test_the_headings_are_seen(shown: Any) -> None:
    from selenium.webdriver.common.by import By

    found = shown.find_elements(By.CSS_SELECTOR, "h1, h2")
    assert [one.text for one in found] == [
        "digits: what the run learned",
        *("What the numbers say", "Categories", "Figures", "Metrics", "Settings"),
        *("Made by", "How to go on"),
    ]
    assert all(one.is_displayed() for one in found)


@pytest.mark.parametrize("width", [320, 390, 800, 1400])
def test_nothing_is_wider_than_the_screen(width: int, shown: Any) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    shown.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert shown.execute_script("return innerWidth") == width
    assert shown.execute_script("return document.documentElement.scrollWidth") <= width


CONTRAST = """
const level = c => {
  const parts = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * parts[0] + .7152 * parts[1] + .0722 * parts[2];
};
const ground = e => {
  const own = getComputedStyle(e).backgroundColor;
  return own == 'rgba(0, 0, 0, 0)' ? ground(e.parentElement) : own;
};
return [...document.querySelectorAll('p, li, td, th, dd, dt, figcaption, a, code, h1, h2, h3')]
  .map(e => [level(getComputedStyle(e).color), level(ground(e))].sort((a, b) => b - a))
  .map(([light, dark]) => (light + .05) / (dark + .05));
"""
"""The ratio of luminances of every text and its ground (WCAG 2.2, contrast ratio)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme: str, shown: Any) -> None:
    """By the 4.5 that WCAG 2.2 asks of text at level AA."""
    wanted = [{"name": "prefers-color-scheme", "value": scheme}]
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
    dark = shown.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches")
    assert dark == (scheme == "dark")
    ratios = torch.tensor(shown.execute_script(CONTRAST))
    assert len(ratios) > 100
    assert ratios.min() >= 4.5


def test_the_keyboard_reaches_whatever_can_be_opened_or_scrolled(shown: Any) -> None:
    """The first stop leads past the links; every box that scrolls is a stop."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    reached = []
    for _ in range(40):
        ActionChains(shown).send_keys(Keys.TAB).perform()
        reached.append(shown.execute_script(
            "const e = document.activeElement; return [e.tagName, e.textContent.trim()]"
        ))  # fmt: skip
    assert reached[0] == ["A", "To the results"]
    tags = [tag for tag, _ in reached]
    assert {"SUMMARY", "PRE", "DIV", "A"} <= set(tags)
    unreachable = shown.execute_script(
        "return [...document.querySelectorAll('.scroll, pre')].filter(e => e.tabIndex < 0).length"
    )
    assert unreachable == 0
