"""From a step to a run: optimizers, measuring, the loop.

In: a base and a task. Out: a `Run`, with the prompt that was best on validation.

    optimizers  optimizers and schedules
    evaluate    what a prompt answers on a split
    loop        the loop: a step taken many times
    workers     one step by several processes
    tune        the loop with a prompt as what learns
"""
