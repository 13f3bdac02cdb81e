"""The commands of ``python -m kosmosg``, one module each.

A module has ``add_parser``, which describes the command, and ``run``, which does it. What takes
long to import is imported there: ``--help`` should not wait for torch.
"""

DTYPES = ("float16", "bfloat16", "float32")
