"""From a step to a run: settings, optimizers, measuring, the loop.

In: a base and a task. Out: a `Run`, with the prompt that was best on validation.

    optimizers  optimizers and schedules
    settings    how to learn, and what suits a base and a task
    evaluate    what a prompt answers, and how well
    observe     what answers leave to be watched
    learner     what learns
    checkpoint  a run's state and its file
    memory      a setting of the allocator
    loop        the loop: a step taken many times
    workers     one step by several processes
    tune        the loop with a prompt as what learns
"""
