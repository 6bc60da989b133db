"""The course: the checks of its exercises, which answer at once. Nothing else imports it.

In: answers from the notebooks in `notebooks/`. Out: a line for each answer, and a summary. A
notebook calls `begin`, `check`, `guess` and `reveal`, `band`, and at its end `summary`. A chapter's
file lists its exercises: how the right value is computed, and which mistakes are known.

    values     are two values the same?
    exercises  the kinds of exercises, and how an answer is judged
    record     what a student has answered
    sentences  the course's own task
    twins      things done wrong on purpose
    chapter01  twenty vectors, one frozen model
    chapter02  from text to answer
    chapter03  the way back
    chapter04  frozen is not free
    chapter05  making it learn
    chapter06  is it better?
    chapter07  what did it learn?
    chapter08  a real model, and another family
    chapter09  writing, and keeping it running
    chapter10  your own task
"""

from minipt.course.record import band, begin, check, guess, results, reveal, summary
from minipt.course.sentences import instructions, statements_and_questions
from minipt.course.twins import pad_left, pool_all, prompt_twice, read_at

__all__ = [
    "band",
    "begin",
    "check",
    "guess",
    "instructions",
    "pad_left",
    "pool_all",
    "prompt_twice",
    "read_at",
    "results",
    "reveal",
    "statements_and_questions",
    "summary",
]
