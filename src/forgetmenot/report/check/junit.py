"""A check as JUnit XML, which CI systems show as tests: a task is a test case."""

import re
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from forgetmenot.report.check.words import titles
from forgetmenot.report.verdict_words import decision_words, evidence

NO_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


def junit(content: Mapping[str, Any]) -> str:
    """One test suite from the base to the end, and one for each step of a chain; a test case for each task.

    A forgotten task is a failure. One of which nobody can tell is an error: it has neither passed nor failed.
    The steps only tell where: as the exit status does, failures and errors count from the base to the end.

    Args:
        content: That of check.json.
    """
    names = titles(content)
    root = Element("testsuites", name="fmn check")
    suites = [(f"{names[0]} → {names[-1]}", content["verdicts"], True)]
    if len(content["steps"]) > 1:
        suites += [(f"{one['before']} → {one['after']}", one["verdicts"], False) for one in content["steps"]]
    for title, verdicts, counts in suites:
        decisions = [one["decision"] for one in verdicts.values() if counts]
        suite = SubElement(
            root,
            "testsuite",
            name=_plain(title),
            tests=str(len(verdicts)),
            failures=str(decisions.count("forgotten")),
            errors=str(decisions.count("cannot tell")),
        )
        for task, verdict in verdicts.items():
            case = SubElement(suite, "testcase", name=_plain(task), classname=_plain(title))
            metric = content["tasks"][task]["metric"]
            told = evidence(verdict, metric)
            words = decision_words(verdict, metric)
            kinds = {"forgotten": "failure", "cannot tell": "error"} if counts else {}
            found = SubElement(case, kinds.get(verdict["decision"], "system-out"))
            if found.tag != "system-out":
                found.set("message", _plain(words))
            found.text = _plain(" ".join(filter(None, (f"{words}: {told}", verdict["reason"]))))
    indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _plain(text: str) -> str:
    """A text without the characters that XML 1.0 forbids."""
    return NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
