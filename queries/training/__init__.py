"""Model training as data: what a job asks, what each of its rounds releases, and how a model follows from releases.

PURE, like all of `queries`: a job is a frozen value, a model is numbers, and every party computes both alone. Nothing
here reads data, draws noise or talks to anyone, and no code ever comes with a job.
"""
