"""Dilated attention for PyTorch: `DilatedAttention`, a module, and `dilated_attention`, a function.

The arithmetic is the extension's, on the memory of PyTorch's tensors. Importing `longnet` alone
does not import PyTorch.
"""

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError("longnet.torch needs PyTorch 2.6 or later: pip install torch") from None

if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
    raise ImportError(
        f"longnet.torch: PyTorch {torch.__version__}, expected 2.6 or later: pip install -U torch"
    )

from longnet.torch.attention import DilatedAttention, dilated_attention

__all__ = ["DilatedAttention", "dilated_attention"]
