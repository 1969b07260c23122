"""From noisy moments and the variance of their noise to results: intervals, models, tests and survival curves.

Everything here is a function of arrays: `moments` of shape (cells, slots) in units of one row and `noise`, the variance
of the noise in each slot, of shape (slots,). What slots mean is `queries.moments`' business. Must not know: plans, IR,
schemas, data, how noise was drawn.
"""
