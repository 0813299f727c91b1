"""YAML that no person writes ends with a sentence, and what is written is read as the same."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from forgetmenot.errors import UserError
from forgetmenot.tasks.yaml_file import parse_yaml, read_yaml, write_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{here}: &{here} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, here in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "brackets": ("a: " + "[" * 1000, "more than 50 lists"),
    "indents": ("".join(" " * k + "a:\n" for k in range(300)), "more than 50 lists"),
    "levels": ("a: " + "[" * 60 + "]" * 60, "more than 50 lists"),
    "aliases": (BOMB, "more than 100,000 values"),
    "merged aliases": (BOMB.replace("[*", "[<<: *").replace(", *", ", <<: *"), "more than 100,000 values"),
    "a list that holds itself": ("a: &a [*a]", "more than 50 lists"),
    "a long text": ("a: " + "x" * 2_000_000, "2,000,003 letters"),
    "a long number": ("a: " + "9" * 5000, "5,000 digits"),
    "a long hexadecimal number": ("a: 0x" + "f" * 5000, "5,002 digits"),
    "a type of Python's": ("a: !!python/name:os.system", "python"),
    "a date that is none": ("a: !!timestamp 2001-99-99", "timestamp"),
    "a number that is none": ("a: !!int abc", "abc"),
    "a truth that is none": ("a: !!bool maybe", "maybe"),
    "a list as a key": ("[a]: b", "cannot be a key"),
    "a zero in a text": ('a: "x\\0y"', "a zero"),
    "half a character": ('a: "\\ud800"', "half a character"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_person_writes_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    text, says = HOSTILE[name]
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml, line \d+: this is not YAML") as refused:
        read_yaml(tmp_path / "mine.yaml")
    assert says in str(refused.value)
    assert len(str(refused.value)) < 300
    with pytest.raises(yaml.YAMLError):  # as --set reads it
        parse_yaml(text)


def test_an_alias_that_a_person_writes_is_read() -> None:
    assert parse_yaml("a: &one {b: 1}\nc: *one\nd: {<<: *one, e: 2}") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": {"b": 1, "e": 2},
    }


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**20), 10**20)
        | st.floats(allow_nan=False)
        | st.text("0127exyo_-.:~ntrue", max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=3)
        ),
        max_leaves=6,
    )
)
def test_what_is_written_is_read_as_the_same(content: object) -> None:
    """Texts that YAML 1.1 or 1.2 takes for something else too: 1e5, 0o7, yes, 2:1."""
    assert parse_yaml(write_yaml({"content": content})) == {"content": content}
