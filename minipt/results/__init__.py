"""What a run becomes: a directory, a table, a picture.

In: a run. Out: files and text.

    tables      rows of cells as text
    plot        pictures
    store       a run's directory
    kept        results that are computed once
    intervals   the interval of a mean difference
    report      a run beside its rivals
    facts       all that is to be kept of a prompt
    xray        one step, with every array of it
    neighbours  the words nearest to each vector of a prompt
    influence   what is lost without a vector
    reading     what a prompt says
"""
