"""The wire's mechanics: channels, deadlines, peers, errors. Knows no service and no message of ours.

gRPC's own log lines on stderr would say worse what our errors say; whoever debugs the transport sets GRPC_VERBOSITY.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
