"""The report in a real browser, without a network."""

import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forgetmenot.record.results import RunResults
from forgetmenot.report.check.page import page as check_page
from forgetmenot.report.comparison.claims import Claim, Condition, judge
from forgetmenot.report.comparison.comparison import Comparison
from forgetmenot.report.comparison.page import comparison_page
from forgetmenot.report.comparison.runs import ComparedRun, read_run
from forgetmenot.report.html import Now, report_page, write_report
from forgetmenot.report.live import LivePage, plain_page
from forgetmenot.report.published import load_published
from tests.report.checked import content
from tests.report.compared_runs import forgetful, write_answers

selenium = pytest.importorskip("selenium", reason="the browser tests need selenium (the dev extra)")

from axe_core_python.selenium import Axe  # noqa: E402
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver import Chrome, ChromeOptions  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

MakeRun = Callable[..., Path]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="the browser tests need chromium and chromedriver on the PATH"
)

CONTRAST = """
    const context = Object.assign(document.createElement('canvas'), {width: 1, height: 1})
        .getContext('2d', {willReadFrequently: true});
    const flatten = layers => {
        for (const [colour, alpha] of layers) {
            context.globalAlpha = alpha;
            context.fillStyle = colour;
            context.fillRect(0, 0, 1, 1);
        }
        return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const luminance = colour => {
        const linear = c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
        const [r, g, b] = colour.map(c => linear(c / 255));
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const paper = getComputedStyle(document.body).backgroundColor;
    const words = '.moment, a, h2 + p, dd, dt, summary, .further, .small, .score, .interval, .since, ' +
        '.chip, .verdict, .legend, .metric';
    let weakest = [99, 'no words'];
    for (const word of document.querySelectorAll(words)) {
        const style = getComputedStyle(word);
        const layers = [[paper, 1]];
        for (const one of [word.closest('td'), word.closest('article'), word])
            if (one) layers.push([getComputedStyle(one).backgroundColor, 1]);
        const ground = luminance(flatten(layers));
        const ink = luminance(flatten([...layers, [style.color, Number(style.opacity)]]));
        const contrast = (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05);
        if (contrast < weakest[0]) weakest = [contrast, word.outerHTML];
    }
    return weakest;
"""


ESCAPED = """
    return [...document.querySelectorAll('main *')]
        .filter(one => !one.closest('.scroll, pre, svg'))
        .filter(one => one.getBoundingClientRect().right > innerWidth + 1)
        .map(one => one.outerHTML.slice(0, 80))
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def show(browser: Chrome, page: Path, width: int, colours: str = "light") -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": colours}]}
    )
    browser.get(page.as_uri())


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("kind", ["four", "sixteen", "joint", "single", "one"])
def test_nothing_overflows(browser: Chrome, make_run: MakeRun, kind: str, width: int) -> None:
    run_dir = {
        "four": lambda: make_run(missing=[(2, "sst2")], text="supercalifragilistic" * 30),
        "sixteen": lambda: make_run(tasks=[f"a_task_with_a_rather_long_name_{i}" for i in range(16)], n=80),
        "joint": lambda: make_run("joint"),
        "single": lambda: make_run("single"),
        "one": lambda: make_run(tasks=["sst2"], also_score=["rte"], texts=["corpus"]),
    }[kind]()
    show(browser, write_report(run_dir), width)
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(ESCAPED) == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_reader_sees_the_page(browser: Chrome, make_run: MakeRun, colours: str) -> None:
    show(browser, write_report(make_run()), 1280, colours)
    assert browser.find_element(By.TAG_NAME, "h1").text == "What base-4m learned and forgot"
    headings = browser.find_elements(By.TAG_NAME, "h2")
    assert len(headings) == 9
    assert all(heading.is_displayed() for heading in headings)
    scores = browser.find_elements(By.CSS_SELECTOR, ".matrix .score")
    assert len(scores) == 20
    assert all(score.is_displayed() for score in scores)
    curves = browser.find_elements(By.CSS_SELECTOR, "svg.curve")
    assert [curve.is_displayed() and curve.size["height"] > 80 for curve in curves] == [True] * 4


def test_a_formula_is_one_click_away(browser: Chrome, make_run: MakeRun) -> None:
    show(browser, write_report(make_run()), 1280)
    card = browser.find_element(By.CSS_SELECTOR, ".cards details")
    equation = card.find_element(By.CSS_SELECTOR, ".equation")
    assert not equation.is_displayed()
    card.find_element(By.TAG_NAME, "summary").click()
    assert equation.is_displayed()
    assert equation.text == "AP = 1/T · Σ_j R[T][j]"


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_words_stand_out_from_their_ground(browser: Chrome, make_run: MakeRun, colours: str) -> None:
    """Words have a contrast of at least 4.5 to what they stand on (WCAG 2.1, 1.4.3)."""
    show(browser, write_report(make_run(never_learned=["cola"], texts=["corpus"])), 1280, colours)
    weakest, where = browser.execute_script(CONTRAST)
    assert 4.5 <= weakest < 99, where


def test_no_request_leaves_the_page(browser: Chrome, make_run: MakeRun) -> None:
    for log in ("performance", "browser"):
        browser.get_log(log)  # forget what other pages did
    page = write_report(make_run(text='<img src="http://example.org/x.png"><script>fetch("/y")</script>'))
    show(browser, page, 1280)
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in asked
    assert [url for url in asked if url != page.as_uri() and not url.startswith("data:")] == []
    assert browser.get_log("browser") == []


# The live page


def going(run_dir: Path) -> RunResults:
    """The run as it stood when its second stage was done."""
    results = json.loads((run_dir / "results.json").read_text())
    return RunResults({**results, "matrix": results["matrix"][:3], "verdicts": {}})


def test_a_live_page_reads_itself_anew_and_asks_nobody_else(browser: Chrome, make_run: MakeRun) -> None:
    for log in ("performance", "browser"):
        browser.get_log(log)
    run_dir, made = make_run(), itertools.count(1)
    results = going(run_dir)

    def make(path: str, held: bool) -> str:
        now = Now([f"Look {next(made)}."], None if held else 1, held)
        return report_page(run_dir, results, now)

    def looks() -> int:
        return int(browser.find_element(By.CSS_SELECTOR, ".moment").text.split()[1].rstrip("."))

    wait = WebDriverWait(browser, 60, ignored_exceptions=[WebDriverException])
    with LivePage(make) as page:
        browser.get(page.address)
        browser.execute_script("scrollTo(0, 600)")
        seen = looks()
        wait.until(lambda _: looks() > seen + 1)
        assert browser.execute_script("return scrollY") == 600
        browser.execute_script("scrollTo(0, 0)")
        wait.until(lambda _: browser.find_element(By.LINK_TEXT, "hold it still").click() is None)
        wait.until(lambda _: browser.find_element(By.LINK_TEXT, "go on"))
        seen = looks()
        time.sleep(2.5)
        assert looks() == seen
        messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        assert {url for url in sent if not url.startswith("data:")} == {page.address, f"{page.address}?hold"}
        assert browser.get_log("browser") == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_live_page_can_be_read(browser: Chrome, make_run: MakeRun, tmp_path: Path, colours: str) -> None:
    run_dir, file = make_run(), tmp_path / "page.html"
    now = Now(["2 of 4 stages are done.", "Go on with: fmn resume " + "a-long-name/" * 20], held=True)
    runs = [{"link": "/runs/a/", "varies": {"method": "ewc"}, "stands": "2 of 4 stages are done."}] * 3
    pages = (
        report_page(run_dir, going(run_dir), now),
        plain_page("a-long-name/" * 20, now),
        plain_page("The study", now, runs=runs, keys=["method"], report="/report.html"),
    )
    for page in pages:
        file.write_text(page, encoding="utf-8")
        show(browser, file, 400, colours)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
        assert browser.execute_script(ESCAPED) == []
        weakest, where = browser.execute_script(CONTRAST)
        assert 4.5 <= weakest < 99, where
    assert browser.find_element(By.LINK_TEXT, "The report of the study").is_displayed()


# The page of a comparison


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 4 models × 3 prompts × 2 orders, with published figures and runs that failed."""
    folder, runs = tmp_path_factory.mktemp("compared"), []
    models = (
        "owner/Qwen2.5-0.5B",
        "owner/phi-2",
        "owner/a-model-with-a-name-that-is-rather-long",
        "owner/none",
    )
    for m, model in enumerate(models):
        for p, prompt in enumerate(("default", "instruction", "a-variant-with-a-long-name")):
            for o, order in enumerate(("ab", "ba")):
                varies, name = {"model": model, "prompt": prompt, "order": list(order)}, f"{m}-{p}-{o}"
                if model == "owner/none":
                    runs.append(ComparedRun(name, varies, failed="supercalifragilistic" * 20))
                    continue
                right = forgetful(m + p + o, kept=0.85 - 0.1 * m, n=60, tasks=order)
                write_answers(folder / name, right, order=order, model=model, parameters=5 * 10 ** (7 + m))
                runs.append(read_run(folder / name, varies))
    page = folder / "report.html"
    page.write_text(
        comparison_page(Comparison("haque", runs, haque=True), load_published("haque-2025")), encoding="utf-8"
    )
    return page


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_of_a_comparison_overflows(browser: Chrome, compared: Path, width: int) -> None:
    show(browser, compared, width)
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(ESCAPED) == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_words_of_a_comparison_stand_out(browser: Chrome, compared: Path, colours: str) -> None:
    show(browser, compared, 1280, colours)
    weakest, where = browser.execute_script(CONTRAST)
    assert 4.5 <= weakest < 99, where


def test_a_reader_sees_who_forgets_least_and_the_papers_figures_apart(
    browser: Chrome, compared: Path
) -> None:
    for log in ("performance", "browser"):
        browser.get_log(log)
    show(browser, compared, 1280)
    assert browser.find_element(By.CSS_SELECTOR, ".verdict").text.startswith(
        "The checkpoint of Qwen2.5-0.5B forgets least: 0."
    )
    pictures = browser.find_elements(By.CSS_SELECTOR, "svg.scatter, svg.strips")
    assert len(pictures) == 1 + 3 + 3 + 1  # ours by size, by prompt, by order; the published by size
    assert all(picture.is_displayed() and picture.size["height"] > 80 for picture in pictures)
    ours = browser.find_elements(By.CSS_SELECTOR, ".published td.ours")
    assert [cell.text for cell in ours].count("–") == len(
        ours
    ) - 2 * 4  # two of the paper's models are ours too
    assert "0.935" not in browser.find_element(By.CSS_SELECTOR, ".wide").text
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if url != compared.as_uri() and not url.startswith("data:")] == []


# The page of a check


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a chain of three, with long names and long texts."""
    page = tmp_path_factory.mktemp("checked") / "check.html"
    page.write_text(check_page(content(chain=True, text="supercalifragilistic" * 30)), encoding="utf-8")
    return page


@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_of_a_check_overflows(browser: Chrome, checked: Path, width: int) -> None:
    show(browser, checked, width)
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(ESCAPED) == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_words_of_a_check_stand_out(browser: Chrome, checked: Path, colours: str) -> None:
    show(browser, checked, 1400, colours)
    weakest, where = browser.execute_script(CONTRAST)
    assert 4.5 <= weakest < 99, where


def test_a_reader_sees_what_was_lost_first(browser: Chrome, checked: Path) -> None:
    for log in ("performance", "browser"):
        browser.get_log(log)
    show(browser, checked, 1400)
    assert browser.find_element(By.CSS_SELECTOR, ".status").text == "Forgotten"
    first = browser.find_element(By.CSS_SELECTOR, ".verdicts tbody tr")
    assert first.find_element(By.CSS_SELECTOR, ".task").text == "corpus"
    pictures = browser.find_elements(By.CSS_SELECTOR, "svg.strip")
    assert len(pictures) == 15
    assert all(picture.is_displayed() and picture.size["width"] > 150 for picture in pictures)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if url != checked.as_uri() and not url.startswith("data:")] == []


@pytest.fixture(scope="module")
def claimed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study with claims: borne out, not borne out, and not to be tested."""
    folder, runs = tmp_path_factory.mktemp("claimed"), []
    for m, (method, share) in enumerate({"sequential": 0.6, "replay": 0.9, "ewc": 0.6}.items()):
        for seed in range(1 if method == "ewc" else 4):
            run = folder / f"{method}-{seed}"
            write_answers(run, forgetful(seed=10 * m + seed, kept=share))
            runs.append(read_run(run, {"method": method, "seed": seed}))
    weights = (
        {"replay": 1.0, "sequential": -1.0},
        {"sequential": 1.0, "replay": -1.0},
        {"ewc": 1.0, "sequential": -1.0},
    )
    comparison = Comparison("claimed", runs)
    claims = [
        Claim(says="One keeps more.", conditions=[Condition(figure="final mean", weights=one)])
        for one in weights
    ]
    page = folder / "report.html"
    page.write_text(comparison_page(comparison, claims=judge(comparison, claims)), encoding="utf-8")
    return page


@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_of_the_claims_overflows(browser: Chrome, claimed: Path, width: int) -> None:
    show(browser, claimed, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(ESCAPED) == []


# What axe-core finds: names, roles, order, contrast


@pytest.mark.parametrize(("width", "colours"), [(1400, "light"), (400, "dark")])
@pytest.mark.parametrize("kind", ["run", "joint", "live", "compared", "claimed", "checked"])
def test_nobody_is_kept_out(
    browser: Chrome,
    make_run: MakeRun,
    compared: Path,
    claimed: Path,
    checked: Path,
    tmp_path: Path,
    kind: str,
    width: int,
    colours: str,
) -> None:
    """By the rules of axe-core, WCAG 2.1 and good practice; the contrast of words has a test above."""

    def live() -> Path:
        (tmp_path / "live.html").write_text(
            report_page(run := make_run(), going(run), Now(["2 of 4 are done."]))
        )
        return tmp_path / "live.html"

    pages: dict[str, Callable[[], Path]] = {
        "run": lambda: write_report(make_run(missing=[(2, "sst2")])),
        "joint": lambda: write_report(make_run("joint", also_score=["rte"], texts=["corpus"])),
        "live": live,
        "compared": lambda: compared,
        "claimed": lambda: claimed,
        "checked": lambda: checked,
    }
    show(browser, pages[kind](), width, colours)
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    found = Axe().run(browser)
    assert {"landmark-unique", "document-title"} <= {one["id"] for one in found["passes"]}
    assert [(one["id"], one["impact"], one["nodes"][0]["html"]) for one in found["violations"]] == []


@pytest.mark.parametrize(("width", "colours"), [(1400, "light"), (400, "dark")])
def test_the_docs_home_page_keeps_nobody_out(browser: Chrome, site: Path, width: int, colours: str) -> None:
    """The theme has faults of little weight of its own; nothing serious, and nothing wider than the page."""
    show(browser, site / "index.html", width, colours)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    found = Axe().run(browser)
    assert {"document-title", "image-alt"} <= {one["id"] for one in found["passes"]}
    serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert [(one["id"], one["nodes"][0]["html"]) for one in serious] == []
