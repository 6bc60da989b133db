"""The frozen model: its numbers, its layers, one forward and one backward for three families.

In: rows of embeddings. Out: hidden states, and on the way back the gradients of the rows.

    base    what a frozen base is made of
    ragged  texts of different lengths as one matrix of rows
    trace   the record of a step, which is also what the backward pass reads
    layer   the tools of a layer: its weights, its rows, its names in the trace
    model   the layers themselves, forward and backward
"""
