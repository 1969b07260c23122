"""Version 1 of the wire format, and the Python generated from it."""
