"""What a computation costs: operations, and bytes that live at once.

Both are counted from what torch is asked to do, so tensors without memory (``FakeTensorMode``)
cost as much as real ones, and no card is needed to know what will fit into it.
"""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from torch.utils.weak import WeakIdKeyDictionary

aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a computation costs.

    Attributes:
        flops: Operations of matrix products, convolutions and attention; a multiplication with
            its addition counts as two.
        peak: The most bytes that lived at once, of tensors that it has made.
    """

    flops: int
    peak: int


class Memory(TorchDispatchMode):
    """Counts the bytes of tensors that are made while it is on.

    Args:
        known: Tensors that are there already, such as weights; views of them cost nothing.
    """

    def __init__(self, known: Iterable[Tensor]):
        super().__init__()
        self.live = self.peak = 0
        self._seen: Any = WeakIdKeyDictionary()
        for tensor in known:
            self._seen[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        """Run an operation, and look at what comes out."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen[storage] = True
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._remove, size)

    def _remove(self, size: int) -> None:
        self.live -= size


def measure(compute: Callable[[], Any], known: Iterable[Tensor]) -> Cost:
    """Run a computation, and count what it costs.

    Args:
        compute: What to run; its result is dropped.
        known: Tensors that are there already.
    """
    memory = Memory(known)
    with FlopCounterMode(display=False, custom_mapping=OF_A_CPU) as flops, memory:
        compute()
    return Cost(flops=flops.get_total_flops(), peak=memory.peak)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


# What torch's counter knows of other devices' kernels, of the one that tensors on a CPU take.
OF_A_CPU: Any = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
