"""Templates that would eat the machine end with a sentence, and all others render as ever."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from forgetmenot.errors import UserError
from forgetmenot.prompting.chat_template import write_chat
from forgetmenot.prompting.prompt import Prompt
from forgetmenot.prompting.sandbox import LimitedSandbox

LOOP = "{% for i in range(100000) %}"
GROW = "{% set ns = namespace(x='aa') %}{% for i in range(64) %}"
HOSTILE = {
    "a product": "{{ 'x' * 10**9 }}",
    "a product of a list": "{{ [1] * 10**9 }}",
    "nested ranges": LOOP + LOOP + "{% endfor %}{% endfor %}",
    "nested ranges that write": LOOP + LOOP + "some words {{ text }}{% endfor %}{% endfor %}",
    "nested ranges that pass over all": LOOP
    + "{% for j in range(100000) if false %}{% endfor %}{% endfor %}",
    "center": "{{ 'x'|center(10**9) }}",
    "center by name": "{{ 'x'|center(width=1000000000) }}",
    "the method center": "{{ 'x'.center(10**9) }}",
    "ljust": "{{ 'x'.ljust(10**9) }}",
    "zfill": "{{ 'x'.zfill(10**9) }}",
    "indent": "{{ 'x\ny'|indent(10**9) }}",
    "a width behind %": "{{ '%1000000000d' % 1 }}",
    "a precision behind %": "{{ '%.1000000000f' % 1.0 }}",
    "a width among the values": "{{ '%*d' % (10**9, 1) }}",
    "many widths": "{{ ('%999d' * 100000) % ((1,) * 100000) }}",
    "the filter format": "{{ '%1000000000d'|format(1) }}",
    "a width of str.format": "{{ '{:1000000000}'.format(1) }}",
    "a width of str.format among the values": "{{ '{0:>{1}}'.format('a', 10**9) }}",
    "a width in a list": "{{ '{0:>{1[0]}}'.format('a', [10**9]) }}",
    "format_map": "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
    "powers": "{{ 10**(10**8) }}",
    "long numbers": "{{ ('f' * 3000000)|int(base=16) // 7 }}",
    "doubled by ~": GROW + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "doubled by +": GROW + "{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "doubled by writing": GROW + "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    "doubled lists": GROW + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "doubled maps": GROW + "{% set ns.x = dict(a=ns.x, b=ns.x) %}{% endfor %}{{ ns.x }}",
    "squared by replace": GROW + "{% set ns.x = ns.x|replace('a', ns.x) %}{% endfor %}{{ ns.x }}",
    "squared by join": GROW + "{% set ns.x = ns.x|join(ns.x) %}{% endfor %}{{ ns.x }}",
    "copies of a long text": "{% set a = 'x' * 3000000 %}" + LOOP + "{% set b = a[1:] %}{% endfor %}",
    "one long text for all": "{% set b = 'x' * 1000000 %}"
    "{{ range(100000)|map(attribute='q', default=b)|list|string }}",
    "a list that holds itself": "{% set ns = namespace() %}{% set ns.x = [ns, ns] %}{{ ns }}",
    "sums of lists": "{{ ([[1]] * 60000)|sum(start=[]) }}",
    "a search in each turn": "{% set l = range(100000)|list %}" + LOOP + "{{ -1 in l }}{% endfor %}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}"
    "{% endmacro %}{{ f(64) }}",
    "a loop that calls itself": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "a loop that calls itself twice": "{% for x in [1, 2] recursive %}"
    "{{ loop([1, 2]) if loop.depth < 60 }}{% endfor %}",
    "parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "conditions": "{% if text %}" * 5000 + "{% endif %}" * 5000,
    "loops": "{% for i in text %}" * 30 + "{% endfor %}" * 30,
    "expressions": "{{ text }}" * 100_000,
    "rounding": "{{ 1.5|round(1000000000) }}",
    "batch": "{{ [1]|batch(1000000000, 'x')|list }}",
    "tojson": "{{ [1, 2]|tojson(indent=1000000000) }}",
    "wordwrap": "{{ ('ab ' * 100000)|wordwrap(1, wrapstring='x' * 100000) }}",
    "urlize": "{{ ('www.' * 500000)|urlize }}",
    "striptags": "{{ ('<' * 500000)|striptags }}",
    "translate": "{{ 'x'.translate({120: 'y'}) }}",
    "to_bytes": "{{ (1).to_bytes(1000000000, 'big') }}",
    "division by zero": "{{ 1 / 0 }}",
    "another template": "{% include 'other' %}",
}
ORDINARY = {
    "loop": "{% for x in items %}{{ loop.index }}/{{ loop.length }}"
    " {{ x }}{{ ', ' if not loop.last }}{% endfor %}",
    "else": "{% for x in [] %}{{ x }}{% else %}none{% endfor %}",
    "if": "{% for x in items if x != 'b' %}{{ loop.previtem }}{{ x }}{% endfor %}",
    "pairs": "{% for k, v in map.items() %}{{ k }}={{ v }};{% endfor %}"
    "{% for k, v in map|dictsort %}{{ v }}{% endfor %}",
    "recursive": "{% for x in tree recursive %}{{ x.name }}({{ loop(x.kids) if x.kids }}){% endfor %}",
    "macro": "{% macro m(a, b=1) %}{{ a }}-{{ b }}{{ caller() if caller }}"
    "{% endmacro %}{{ m(1, b=2) }}{% call m('x') %}in{% endcall %}",
    "blocks": "{% set y %}<{{ text }}>{% endset %}{% filter upper %}{{ y }}{% endfilter %}{{ y|length }}",
    "slices": "{{ text[2:5] }}{{ items[::-1] }}{{ items[-1] }}{{ (1, 2)[0] }}",
    "literals": "{{ {'a': [1, (2, 'x')]} }}{{ [1] + [2] }}{{ 'ab' * 3 }}{{ '-' * 0 }}",
    "numbers": "{{ 7 // 2 }} {{ 7 % 4 }} {{ 2 ** 10 }} {{ 1.5 + 1 }}"
    " {{ -3 }} {{ 10 / 4 }} {{ 2.5|round(1) }}",
    "formats": "{{ '%05.1f %s' % (1.25, text) }}{{ '%s'|format(text) }}"
    "{{ '{:>8}|{}'.format(text, 9000000000) }}",
    "texts": "{{ text.split()|join('+') }}{{ text|replace('a', 'bb') }}"
    "{{ ', '.join(items) }}{{ text.center(30) }}",
    "lists": "{{ items|batch(2, '-')|list }}{{ items|map('upper')|list }}"
    "{{ items|select('in', 'ab')|list }}{{ numbers|sum }}",
    "groups": "{% for g in people|groupby('age') %}"
    "{{ g.grouper }}:{{ g.list|map(attribute='name')|join }} {% endfor %}",
    "cut": "{{ text|truncate(8) }}{{ text|wordwrap(6) }}"
    "{{ text|indent(2, first=true) }}{{ text|center(20) }}{{ text|title }}",
    "json": "{{ map|tojson }}{{ items|tojson(indent=1) }}",
    "namespace": "{% set ns = namespace(n=0) %}{% for x in items %}"
    "{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "joined": "{{ text ~ 1 ~ none ~ items }}",
}
FIELDS: Mapping[str, Any] = {
    "text": "a man walks over a bridge",
    "items": ["a", "b", "c"],
    "numbers": [1, 2, 3],
    "map": {"b": 2, "a": 1},
    "tree": [{"name": "r", "kids": [{"name": "s", "kids": []}, {"name": "t"}]}],
    "people": [{"name": "x", "age": 1}, {"name": "y", "age": 2}, {"name": "z", "age": 1}],
}


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_llama)
    return loaded


@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_that_would_eat_the_machine_ends_with_a_sentence(name: str) -> None:
    with pytest.raises(UserError, match=r"^prompt 'mine': the template .*\.$"):
        Prompt("mine", HOSTILE[name]).render({"text": "hello"})


@pytest.mark.parametrize("name", HOSTILE)
def test_and_so_does_a_checkpoints_chat_template(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match=r"^the model's chat template .*\.$"):
        write_chat(tokenizer, [{"role": "user", "content": "hi"}], chat_template=HOSTILE[name], text="hello")


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_template_renders_as_without_limits(name: str) -> None:
    plain = ImmutableSandboxedEnvironment().from_string(ORDINARY[name]).render(FIELDS)
    assert LimitedSandbox().from_string(ORDINARY[name]).render(FIELDS) == plain


def test_the_limits_grow_with_the_example() -> None:
    text = "some words " * 1_000_000
    assert Prompt("long", "{{ text|trim }}{{ text.replace(' ', '_') }}").render({"text": text}) == (
        text.strip() + text.replace(" ", "_")
    )
    turns = [str(k) for k in range(200_000)]
    template = "{% for a in turns %}{{ a }}{% for b in turns[:5] %}{{ b }}{% endfor %}{% endfor %}"
    assert len(Prompt("turns", template).render({"turns": turns})) == len("".join(turns)) + 5 * len(turns)


def test_each_rendering_has_a_budget_of_its_own() -> None:
    prompt = Prompt("half", LOOP + "{{ text }}{{ text }}{{ text }}{% endfor %}")
    assert len({prompt.render({"text": "x"}) for _ in range(5)}) == 1


@pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed")
def test_the_chat_templates_of_known_models_are_written_as_transformers_writes_them(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    spec = find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    templates = sorted((Path(spec.origin).parent / "chat_templates").glob("*.jinja"))
    assert len(templates) > 10
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}
    conversations: list[tuple[list[dict[str, Any]], list[Any] | None]] = [
        ([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "<think>a</think>b"}], None),
        (
            [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "", "tool_calls": [call]}],
            [tool],
        ),
    ]
    written = 0
    for path in templates:
        for turns, tools in conversations:
            options = {"chat_template": path.read_text(encoding="utf-8"), "tools": tools}
            try:
                expected = tokenizer.apply_chat_template(turns, tokenize=False, **options)
            except Exception:  # noqa: BLE001 (each refuses other conversations)
                continue
            assert write_chat(tokenizer, turns, **options) == expected, path.name
            written += 1
    assert written > len(templates)
