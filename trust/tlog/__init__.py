"""A transparency log's mathematics: Merkle tree, signed notes, checkpoints, cosignatures, witnesses, entries in words.

Pure: bytes and numbers in, bytes and numbers out. It knows no database, no service and no clock.
"""
