"""The one exception that minipt raises on purpose."""


class MiniptError(Exception):
    """An error the user can mend: one sentence that names the thing and what to do.

    The command line prints the sentence and exits non-zero. Whatever else is raised is a fault of
    minipt's own and keeps its traceback.
    """
