"""The exercises of chapter 6."""

TITLE = "Is it better?"

EXERCISES = ()
