"""The coordinator: it brings parties together, and is trusted with nothing."""
