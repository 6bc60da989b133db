"""The one exception: its sentence stays one that is read at once."""

import pickle

from minipt.errors import LONGEST, MiniptError


def test_a_long_sentence_keeps_the_thing_and_what_to_do():
    error = MiniptError(f"model.json says kind = {'a' * 5000!r}: fetch it again")
    assert str(error).startswith("model.json says kind = 'aaa")
    assert str(error).endswith("aaa': fetch it again")
    assert LONGEST <= len(str(error)) <= LONGEST + 5
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # from a worker, say


def test_any_other_sentence_stays_as_it_is():
    assert str(MiniptError("there is no base 'x': give one")) == "there is no base 'x': give one"
