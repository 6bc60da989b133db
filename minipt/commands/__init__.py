"""The command line, on top of everything else.

In: a line of arguments. Out: text or JSON, and an exit status.

    arguments  arguments that several commands share
    doctor     what this machine has, and what is missing
    studies    the commands that compare and measure
    cli        the command `minipt`
"""
