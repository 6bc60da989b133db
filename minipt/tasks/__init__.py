"""What a prompt learns from: texts with their answers, in three splits.

In: files, or the names of data sets. Out: a `Task`.

    rows          your own CSV or JSON lines, row by row
    task          a task and its splits
    datasets      the tasks that have a name
    bag_of_words  a classifier that only counts words, to compare with
"""
