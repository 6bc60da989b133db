"""The exercises of chapter 10."""

TITLE = "Your own task"

EXERCISES = ()
