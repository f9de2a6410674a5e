"""Ranks that exchange tensors: threads of a process, processes of MPI, GPUs of NCCL."""

from longnet.communicator.protocol import DEFAULT_TIMEOUT, Communicator, Work

__all__ = ["DEFAULT_TIMEOUT", "Communicator", "Work"]
