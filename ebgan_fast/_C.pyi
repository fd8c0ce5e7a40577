# Tuples of arguments hold the members of a struct in csrc/kernels.h, in its order. The `packed` methods of
# ebgan_fast.ops make them.
from typing import TypedDict

_Arguments = tuple[object, ...]

class BuildInfo(TypedDict):
    compiler: str
    isas_compiled: list[str]  # slowest first
    isas_supported: list[str]  # those of them that this processor has
    isa: str
    openmp: bool
    caches: tuple[int, int, bool]  # bytes of a core's L2 and of the L3, 0 if unknown; True if the L3 is far

def build_info() -> BuildInfo: ...

# The bytes of a pass from which gradients are stored past the cache, and True if they count for each thread.
def stream_from() -> tuple[int, bool]: ...
def stream_rule(l2: int, l3: int, slow_l3: bool, /) -> tuple[int, bool]: ...
def set_stream_from(bytes: int, each_thread: bool, /) -> None: ...
def loss(dtype: int, it: _Arguments, threads: int, /) -> None: ...
def energy_gradient(dtype: int, it: _Arguments, threads: int, /) -> None: ...
def hinge(acc: int, it: _Arguments, /) -> None: ...
def pulling_away(dtype: int, it: _Arguments, threads: int, /) -> None: ...
def pulling_away_gradient(dtype: int, it: _Arguments, threads: int, /) -> None: ...

class cuda:  # noqa: N801  a submodule, absent if it was not built
    compiler: str
    architectures: str  # "75 80 90"
    has_ptx: bool  # of the last architecture, for later GPUs
    @staticmethod
    def device_error() -> str: ...  # "" if a GPU can be used
    @staticmethod
    def loss_workspace(dtype: int, it: _Arguments, /) -> tuple[int, int]: ...
    @staticmethod
    def loss(dtype: int, it: _Arguments, partials: int, counters: int, stream: int, /) -> None: ...
    @staticmethod
    def energy_gradient(dtype: int, it: _Arguments, stream: int, /) -> None: ...
    @staticmethod
    def hinge(acc: int, it: _Arguments, stream: int, /) -> None: ...
    @staticmethod
    def pulling_away_workspace(dtype: int, it: _Arguments, /) -> tuple[int, int]: ...
    @staticmethod
    def pulling_away(dtype: int, it: _Arguments, tf32: bool, partials: int, counters: int, stream: int, /) -> None: ...
    @staticmethod
    def pulling_away_gradient(dtype: int, it: _Arguments, tf32: bool, stream: int, /) -> None: ...
    @staticmethod
    def scale_gradients(
        dtype: int,
        gradients: list[tuple[int, int, int]],  # from, to, count
        upstream: int,
        expected: int,
        expected_number: float,
        in_place: bool,
        stream: int,
        /,
    ) -> None: ...
