"""The exercises of chapter 3."""

TITLE = "The way back"

EXERCISES = ()
