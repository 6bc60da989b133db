"""What a run becomes: a directory, a table, a picture.

In: a run. Out: files and text.

    store   a run's directory
    plot    pictures
    report  tables
    xray    one step, with every array of it
"""
