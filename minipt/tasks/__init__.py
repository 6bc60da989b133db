"""What a prompt learns from: texts with their answers, in three splits.

In: files, or the names of data sets. Out: a `Task`.

    task          a task and its splits; your own CSV or JSON lines
    datasets      the tasks that have a name
    bag_of_words  a classifier that only counts words, to compare with
"""
