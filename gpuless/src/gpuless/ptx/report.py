"""The counts of a launch's accesses and instructions."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field


class Access(enum.Enum):
    LOAD = "load"
    STORE = "store"
    STRONG_LOAD = "ordered load"  # races with plain accesses only, as an atomic operation does
    STRONG_STORE = "ordered store"
    INTEGER_ATOMIC = "atomic operation"
    FLOAT_ATOMIC = "atomic operation on floats"


@dataclass
class BufferTraffic:
    """Global memory traffic of one argument."""

    bytes_read: int = 0
    bytes_written: int = 0
    sectors_read: int = 0  # of 32 bytes by the array's real address, counted once for each access of a warp
    sectors_written: int = 0
    loads: Counter[int] = field(default_factory=Counter)  # the number of lanes by the bits of a lane's access
    stores: Counter[int] = field(default_factory=Counter)
    integer_atomics: int = 0
    float_atomics: int = 0

    def count(self, access: Access, width: int, lanes: int, sectors: int) -> None:
        if access in (Access.LOAD, Access.STRONG_LOAD):
            self.bytes_read += width * lanes
            self.sectors_read += sectors
            self.loads[8 * width] += lanes
        elif access in (Access.STORE, Access.STRONG_STORE):
            self.bytes_written += width * lanes
            self.sectors_written += sectors
            self.stores[8 * width] += lanes
        elif access is Access.FLOAT_ATOMIC:
            self.float_atomics += lanes
        else:
            self.integer_atomics += lanes


@dataclass
class Report:
    """The counts of a launch, over the CTAs that ran."""

    buffers: dict[int, BufferTraffic] = field(default_factory=dict)  # by the number of the argument
    ctas: int = 0
    instructions: int = 0  # counted once for each warp
    tensor_core_instructions: int = 0  # counted once for each warp
    barriers: int = 0  # counted once for each CTA
    shared_wavefronts: int = 0
    shared_accesses: int = 0  # the wavefronts that a layout without bank conflicts would take

    @property
    def bank_conflict_factor(self) -> float:
        """The wavefronts divided by those without bank conflicts: from 1.0 to 32."""
        return self.shared_wavefronts / self.shared_accesses if self.shared_accesses else 1.0

    @property
    def bytes_read(self) -> int:
        return sum(traffic.bytes_read for traffic in self.buffers.values())

    @property
    def bytes_written(self) -> int:
        return sum(traffic.bytes_written for traffic in self.buffers.values())

    @property
    def float_atomics(self) -> int:
        return sum(traffic.float_atomics for traffic in self.buffers.values())
