"""Who is who: keys, certificates, signed envelopes, invitations, memberships and requests.

Pure mechanics over bytes and local files. Nothing here opens a connection, a database or a clock: times are arguments.
"""
