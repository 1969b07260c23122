"""Adversaries, and the games that measure what they gain. Used by tests/attacks and by benchmarks/attacks.py."""
