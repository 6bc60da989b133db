"""The exercises of chapter 8."""

TITLE = "A real model, and another family"

EXERCISES = ()
