"""Names and references: right, or one sentence."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minipt.errors import MiniptError
from minipt.registry.names import Reference, check_name, known_names, parse_reference

GOOD = [
    "spam",
    "spam.v2",
    "my spam",
    "Spam-2_x",
    "été",
    "Москва",
    "短信",
    "🙂",
    "a",
    "9",
    "x" * 100,
]
BAD = {
    "": "is empty",
    " spam": "white space around",
    "spam ": "white space around",
    "a\tb": "cannot be seen",
    "a\nb": "cannot be seen",
    "a\0b": "cannot be seen",
    "a\x1b[31m": "cannot be seen",
    "\ud800": "cannot be seen",
    "a/b": "holds one of / \\ @ ,",
    "a\\b": "holds one of",
    "a@b": "holds one of",
    "a,b": "holds one of",
    "-m": "begins with a dash or a dot",
    "..": "begins with a dash or a dot",
    ".hidden": "begins with a dash or a dot",
    "x" * 300: "longer than 100",
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_name_is_kept_as_it_is(name):
    assert check_name(name) == name
    assert parse_reference(name) == Reference(name)
    assert parse_reference(f"{name}@2") == Reference(name, number=2)
    assert parse_reference(f"{name}@now") == Reference(name, tag="now")


@pytest.mark.parametrize("name", BAD)
def test_a_bad_name_is_one_sentence(name):
    for kind in ("prompt", "tag"):
        with pytest.raises(MiniptError) as caught:
            check_name(name, kind)
        assert BAD[name] in str(caught.value)
        assert str(caught.value).startswith(f"the {kind}'s name ")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize("name", [None, 3, b"spam", ["spam"]])
def test_a_name_is_a_string(name):
    with pytest.raises(MiniptError, match="a prompt's name is a string"):
        check_name(name)


@pytest.mark.parametrize(
    "text", ["a@", "a@0", "a@02", "a@٢", "a@" + "9" * 30, "a@-1", "a@b@c", "@"]
)
def test_a_bad_reference_is_one_sentence(text):
    with pytest.raises(MiniptError):
        parse_reference(text)


def test_a_tag_is_no_number():
    for tag in ("2", "007", "٢"):
        with pytest.raises(MiniptError, match="is a number, which names a version"):
            check_name(tag, "tag")
    assert check_name("v2", "tag") == "v2"


def test_two_ways_to_type_a_letter_are_one_name():
    composed, decomposed = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert check_name(decomposed) == composed


@given(st.text(max_size=120))
def test_any_text_is_a_name_or_a_sentence(text):
    try:
        name = check_name(text)
    except MiniptError as error:
        assert "\n" not in str(error)
    else:
        assert parse_reference(f"{name}@3") == Reference(name, number=3)
        assert check_name(name) == name
        name.encode()


def test_unknown_names_list_those_that_there_are():
    assert known_names("spam", []) == "there is none yet"
    assert known_names("spma", ["eggs", "spam"]) == "did you mean spam? There are spam, eggs"
    assert known_names("zzz", ["eggs", "spam"]) == "there are eggs, spam"
    many = [f"name-{n}" for n in range(1000)]
    assert len(known_names("x", many)) < 150
