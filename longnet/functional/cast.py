"""The same values in another dtype."""

from longnet.autograd import Variable, record
from longnet.functional.buffers import cast_to


def cast(x: Variable, dtype: str) -> Variable:
    """Round to `dtype`.

    Parameters
    ----------
    x : Variable (...)
    dtype : {'float32', 'float16', 'bfloat16'}

    Returns
    -------
    Variable (...)
        `x` itself where it has that dtype.
    """
    if x.dtype == dtype:
        return x
    before = x.dtype
    return record(cast_to(x.data, dtype), [x], lambda dy: [cast_to(dy, before)])
