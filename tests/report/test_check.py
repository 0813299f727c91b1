"""What a check says: what was lost comes first, in every form, and a user's text stays text."""

import io
from xml.etree.ElementTree import fromstring

import pytest
from rich.console import Console

from forgetmenot.report.check.junit import junit
from forgetmenot.report.check.markdown import markdown
from forgetmenot.report.check.page import page
from forgetmenot.report.check.terminal import print_check
from forgetmenot.report.check.words import headline, noise_words, rows, where_lost
from tests.report.checked import LONG, content


def test_the_headline_leads_with_what_was_lost_the_worst_first() -> None:
    said = headline(content())
    order = [said.index(word) for word in ("forgot corpus", "sst2 (", "mrpc", "Kept: ", "Gained: ")]
    assert order == sorted(order)
    assert "perplexity" in said
    assert f"Kept: {LONG} (lower, within the margin)." in said
    assert "408 examples are too few" in said
    assert "not above chance on mrpc" in said
    below = content()
    below["tasks"]["sst2"]["majority"] = 0.99
    assert "nothing can be lost" in headline(below)
    assert "chance on mrpc, where" in headline(below)  # sst2 did lose something


def test_a_loss_that_is_kept_and_yet_worse_is_higher() -> None:
    found = content()
    found["verdicts"]["corpus"] |= {"decision": "kept", "lower_within_margin": True}
    assert "corpus (higher, within the margin)" in headline(found)


def test_a_table_begins_with_what_was_lost() -> None:
    found = content()
    named = [row["task"] for row in rows(found, found["verdicts"])]
    assert named == ["corpus", "sst2", "mrpc", LONG, "arc_easy"]


def test_a_chain_says_in_which_step() -> None:
    assert where_lost(content()) == []
    told = where_lost(content(chain=True))
    assert "sst2 was lost in quantizing (run:01-sst2 → exported-Q4_0.gguf)." in told
    assert any(one.startswith("corpus was lost in training") for one in told)


def test_the_noise_of_the_path_is_counted() -> None:
    again, control = noise_words(content())
    assert "all of 320 examples alike" in again
    assert "1e-05 nats" in again
    assert "2 of mrpc otherwise, of 320 examples" in control


@pytest.mark.parametrize("width", [80, 140])
def test_a_terminal_shows_every_task(width: int) -> None:
    screen = io.StringIO()
    print_check(content(chain=True), Console(file=screen, width=width, markup=False))
    said = screen.getvalue()
    assert all(len(line) <= width for line in said.splitlines())
    for word in ("base → run:01-sst2", "corpus", "sst2", "mrpc", "forgotten", "kept", "cannot tell", "A/A"):
        assert word in said
    *_, last = said.split("\n\n")
    flat = " ".join(last.split())
    assert flat.startswith(
        "FORGOTTEN: base → exported-Q4_0.gguf (exit status 1) exported-Q4_0.gguf forgot corpus"
    )
    assert "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}9,815" in said


def test_markdown_keeps_a_users_marks_as_text() -> None:
    said = markdown(content(text="<b>bold</b> | *stars* `code` [link](http://x)"))
    assert said.startswith("## Forgotten: base → run:01-sst2\n")
    table = [line for line in said.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(table) == 6
    assert all(line.replace("\\|", "").count("|") == 8 for line in table)
    assert "<b>" not in said
    assert "\\*stars\\*" in said
    assert "[link](" not in said
    assert "@team" not in markdown(content(text="@team &lt;b&gt;"))
    assert "&amp;lt;b" in markdown(content(text="@team &lt;b&gt;"))


def test_junit_counts_failures_and_errors() -> None:
    root = fromstring(junit(content(chain=True)))
    whole, *steps = root.findall("testsuite")
    assert (whole.get("tests"), whole.get("failures"), whole.get("errors")) == ("5", "2", "1")
    assert [one.get("name") for one in steps] == ["base → run:01-sst2", "run:01-sst2 → exported-Q4_0.gguf"]
    assert {(one.get("failures"), one.get("errors")) for one in steps} == {("0", "0")}  # they only tell where
    failed = [case.get("name") for case in whole if case.find("failure") is not None]
    assert failed == ["sst2", "corpus"]


def test_junit_holds_no_character_that_xml_forbids() -> None:
    found = content()
    found["base"]["title"] = "a\x00b\x1b[31m\ud800"
    assert fromstring(junit(found).encode("utf-8")) is not None


def test_the_page_escapes_a_users_text_and_shows_every_flip() -> None:
    said = page(content(text="<script>alert(1)</script>"))
    assert "<script>" not in said
    assert said.count('<tr class="lost">') == 60
    assert said.count('<tr class="gained">') == 3
    assert said.count('<svg class="strip"') == 5


def test_losses_of_other_tokens_ask_for_no_more_examples() -> None:
    found = content()
    found["verdicts"]["corpus"] |= {"decision": "cannot tell", "reason": "other tokens"}
    assert "Cannot tell whether it kept mrpc (408 examples are too few" in headline(found)
    assert "corpus (other tokens)" in headline(found)
    assert {row["task"]: row["words"] for row in rows(found, found["verdicts"])}["corpus"] == "cannot tell"


def test_a_terminal_shows_a_probe_with_the_models_beside_each_other() -> None:
    found = content()
    found["probes"] = {
        "drift": {
            "stages": ["00-base", "01-adapter"],
            "parts": ["sst2 divergence", "json"],
            "metrics": {"sst2 divergence": "KL, nats per answer token", "json": "share of valid answers"},
            "values": [[0.0, 1.0], [5.25, None]],
            "missing": [{"part": "json", "stage": "01-adapter", "reason": "no such prompt"}],
        }
    }
    screen = io.StringIO()
    print_check(found, Console(file=screen, width=80, markup=False))
    lines = [line.split() for line in screen.getvalue().splitlines()]
    assert ["drift", "00-base", "01-adapter"] in lines
    assert ["sst2", "divergence", "0.000", "5.250"] in lines
    assert ["json", "of", "01-adapter:", "no", "such", "prompt"] in lines
