"""Pure functions on arrays: each forward stands directly above its backward.

In: arrays. Out: arrays, and by name what the backward needs.

    threads             work on all cores
    matrix_products     products of matrices, the large ones in pieces
    attention_products  the matrix products that attention is made of
    normal              the normal distribution, which one form of GELU needs
    ops                 every op of a transformer, with its derivation
    blocked_attention   attention over long texts, whose memory grows with T, not with T²
    gradcheck           is a gradient right? finite differences
"""
