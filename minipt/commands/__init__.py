"""The command line, on top of everything else.

In: a line of arguments. Out: text or JSON, and an exit status. Each module has the parser of each
of its commands above the function that the command calls.

    terminal    streams that a terminal need not fear, and lines to type
    find        a RUN as it was typed
    arguments   arguments that several commands share
    doctor      what this machine has, and what is missing
    tune        the command `tune`
    predict     the command `predict`
    generate    the command `generate`
    xray        the command `xray`
    prompts     the command `prompts`
    watch_page  the report of `watch`, as a table, as JSON and as a picture
    watch       the command `watch`
    studies     the commands that compare and measure
    cli         the command `minipt`
"""
