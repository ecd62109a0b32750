"""The lock that each act takes: PyTorch's generators and Pyro's stack and store are global."""

import threading

__all__ = ["LOCK"]

LOCK = threading.RLock()
