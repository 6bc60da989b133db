"""Does it work? Many runs compared.

In: bases, tasks, settings. Out: tables and figures, over several seeds.

    jobs      runs that are kept, so that none is done twice
    sweep     every combination of some settings
    count     operations and bytes of a step, counted from its shapes
    cost      the same, measured
    compare   a prompt against its rivals
    ensemble  several prompts over one base
    transfer  a prompt on other texts, other tasks, another base
    claims    ten published claims, each with a rule for its verdict
    evidence  the report on the claims
"""
