"""The one exception that minipt raises on purpose."""

LONGEST = 360  # characters of a sentence


class MiniptError(Exception):
    """An error the user can mend: one sentence that names the thing and what to do.

    The command line prints the sentence and exits non-zero. Whatever else is raised is a fault of
    minipt's own and keeps its traceback. Names and values that a sentence quotes may be long: then
    its beginning, which names the thing, and its end, which says what to do, are left.
    """

    def __init__(self, sentence: str) -> None:
        if len(sentence) > LONGEST:
            sentence = f"{sentence[: LONGEST // 2]} ... {sentence[-LONGEST // 2 :]}"
        super().__init__(sentence)
