"""Discrete Gaussians drawn from a key, and the layers of noise that agents add and that a round can take off again.

What is drawn is a function of the key alone, so whoever has the key of a layer can draw it again. Argument:
docs/noise.md. Must not know: data, budgets, how a round goes.
"""
