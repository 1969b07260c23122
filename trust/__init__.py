"""Mechanics that let parties who do not trust each other work together. No database, no service."""
