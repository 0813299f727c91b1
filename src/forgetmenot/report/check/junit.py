"""A check as JUnit XML, which CI systems show as tests: a task is a test case."""

import re
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from forgetmenot.report.check.words import titles
from forgetmenot.report.verdict_words import decision_words, evidence

NO_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


def junit(content: Mapping[str, Any]) -> str:
    """One test suite for each step of a chain, one test case for each task.

    A forgotten task is a failure. One of which nobody can tell is an error: it has neither passed nor failed.

    Args:
        content: That of check.json.
    """
    names = titles(content)
    root = Element("testsuites", name="fmn check")
    suites = [(f"{names[0]} → {names[-1]}", content["verdicts"])]
    if len(content["steps"]) > 1:
        suites += [(f"{one['before']} → {one['after']}", one["verdicts"]) for one in content["steps"]]
    for title, verdicts in suites:
        decisions = [one["decision"] for one in verdicts.values()]
        suite = SubElement(
            root,
            "testsuite",
            name=_plain(title),
            tests=str(len(decisions)),
            failures=str(decisions.count("forgotten")),
            errors=str(decisions.count("cannot tell")),
        )
        for task, verdict in verdicts.items():
            case = SubElement(suite, "testcase", name=_plain(task), classname=_plain(title))
            metric = content["tasks"][task]["metric"]
            told = evidence(verdict, metric)
            kind = {"forgotten": "failure", "cannot tell": "error"}.get(verdict["decision"], "system-out")
            found = SubElement(case, kind)
            if kind != "system-out":
                found.set("message", _plain(decision_words(verdict, metric)))
            found.text = _plain(" ".join(filter(None, (told, verdict["reason"]))))
    indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _plain(text: str) -> str:
    """A text without the characters that XML 1.0 forbids."""
    return NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
