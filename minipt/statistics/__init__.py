"""Tests of significance and calibration, each a short file with its source.

In: counts, samples, probabilities. Out: p-values, intervals, sums. No SciPy: the tests hold each to
it.

    chi_squared         do two samples have the same shares?
    fisher              the same for two answers, also rare ones
    kolmogorov_smirnov  do two samples of a number have the same distribution?
    permutation         do two samples of vectors have the same mean?
    mcnemar             is one prompt better than another on the same texts?
    holm                several tests at once
    calibration         is a prompt as often right as it says?
    cusum               since when are the answers' shares others?
"""
