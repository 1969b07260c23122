"""A transparency log's mathematics: Merkle tree, signed notes, checkpoints, cosignatures, witnesses, entries in words.

Bytes and numbers in, bytes and numbers out. It knows no database and no service.
"""
