"""The audit log over the store: what is recorded, what is signed, who may read it."""
