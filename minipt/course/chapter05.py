"""The exercises of chapter 5."""

TITLE = "Making it learn"

EXERCISES = ()
