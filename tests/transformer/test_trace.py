"""The trace: a gradient has the shape of its activation, or is refused."""

import numpy as np
import pytest

from minipt.transformer.trace import ForwardOnly, Tape, Trace


def test_a_gradient_of_another_shape_is_refused():
    trace = Trace()
    trace.show("text.h0.out", np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match=r"text\.h0\.out has shape \(2, 3, 4\), its gradient"):
        trace.show_grad("text.h0.out", np.zeros((2, 1, 4)))
    assert not trace.gradients


def test_a_gradient_of_what_was_not_shown_is_refused():
    with pytest.raises(KeyError):
        Trace().show_grad("text.h0.out", np.zeros(2))


def test_a_tape_keeps_for_the_backward_pass_only_and_gives_it_once():
    tape, x = Tape(), np.ones(2)
    tape.show("seen", x)
    tape.keep_input("h0.mlp.up", x)
    tape.keep_for_backward("needed", x)
    assert tape.take("needed") is x
    assert tape.saved == tape.inputs == {}
    with pytest.raises(KeyError):
        tape.take("needed")


def test_a_forward_pass_alone_keeps_nothing():
    tape = ForwardOnly()
    tape.keep_for_backward("x", np.ones(2))
    assert not tape.saved
