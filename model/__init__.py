"""The HART model in torch. It imports no gRPC and no protobuf, and reads no settings and no environment variables.

One variable it sets: the spin of OpenMP's threads, which torch reads when it is imported.
"""

from common.cpus import bound_spin

bound_spin()  # OpenMP reads it when torch is imported
