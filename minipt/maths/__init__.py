"""Pure functions on arrays: each forward stands directly above its backward.

In: arrays. Out: arrays, and by name what the backward needs.

    ops        every op of a transformer, with its derivation
    gradcheck  is a gradient right? finite differences
"""
