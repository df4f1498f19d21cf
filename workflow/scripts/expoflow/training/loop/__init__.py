"""The miniature's own training loops, each a module by the name of its recipe.

    train(out, *, seed, world, base, progress, ...)   trains into the folder `out`, and returns metrics,
    data(seed, world, ...)                            what it trains on: examples, pairs or prompts, in order,
    WARMUP                                            the share of the steps in which the learning rate rises.

`...` are the recipe's settings in the config, which have their defaults there; `data` takes all and reads its own.
"""
