"""A prompt's life after it was tuned: versions that never change, names that move, a log.

In: runs, prompts, and the answers that prompts give. Out: a directory that says which version is
which, and whether a version still does what it did.

    names     names, tags, and references such as spam@2
    database  the SQLite file: read, and written in transactions
    objects   prompts by their content
    version   a version, and what is known about it
    tables    rows of the tables as versions
    log       the answers that were given, and the truth that came later
    compare   two versions side by side
    registry  the registry itself
    exchange  one file that carries a registry to another machine
    monitor   is what is asked and answered now as it was on validation?
"""
