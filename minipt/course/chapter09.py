"""The exercises of chapter 9."""

TITLE = "Writing, and keeping it running"

EXERCISES = ()
