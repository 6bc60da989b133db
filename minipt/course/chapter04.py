"""The exercises of chapter 4."""

TITLE = "Frozen is not free"

EXERCISES = ()
