"""The exercises of chapter 1."""

TITLE = "Twenty vectors, one frozen model"

EXERCISES = ()
