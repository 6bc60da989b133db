"""The exercises of chapter 7."""

TITLE = "What did it learn?"

EXERCISES = ()
