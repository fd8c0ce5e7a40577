# Addresses are data_ptr() integers, 0 for none; sizes and strides count elements.
from typing import TypedDict

# recon, target, their strides from sample to sample, n, k, the gradients to both, and the strides of those
_Pair = tuple[int, int, int, int, int, int, int, int, int, int]

class BuildInfo(TypedDict):
    compiler: str
    isas_compiled: list[str]  # slowest first
    isas_supported: list[str]  # of those, by this processor
    isa: str
    openmp: bool
    caches: tuple[int, int, bool]  # bytes of a core's L2 and of the L3, 0 where unknown; whether the L3 is far away

def build_info() -> BuildInfo: ...

# From how many bytes of a pass its gradients go past the cache, and whether that is for each thread.
def stream_from() -> tuple[int, bool]: ...
def stream_rule(l2: int, l3: int, slow_l3: bool, /) -> tuple[int, bool]: ...
def set_stream_from(bytes: int, each_thread: bool, /) -> None: ...
def energy_forward(dtype: int, norm: int, pair: _Pair, energy: int, threads: int, /) -> None: ...
def energy_backward(
    dtype: int, norm: int, pair: _Pair, energy: int, upstream: int, upstream_stride: int, threads: int, /
) -> None: ...
def hinge(
    acc: int,
    energy_real: int,
    n_real: int,
    energy_fake: int,
    n_fake: int,
    margin: float,
    loss: int,
    grad_real: int,
    grad_fake: int,
    /,
) -> None: ...
def discriminator_loss(
    dtype: int,
    norm: int,
    real: _Pair,
    fake: _Pair,
    margin: float,
    loss: int,
    energy_real: int,
    energy_fake: int,
    threads: int,
    /,
) -> None: ...
def mean_energy(dtype: int, norm: int, pair: _Pair, energy: int, threads: int, /) -> float: ...
def pulling_away_forward(
    dtype: int, code: int, stride: int, n: int, d: int, norms: int, gram: int, threads: int, /
) -> float: ...
def pulling_away_backward(
    dtype: int,
    code: int,
    stride: int,
    n: int,
    d: int,
    norms: int,
    gram: int,
    upstream: float,
    grad: int,
    grad_stride: int,
    threads: int,
    /,
) -> None: ...

class cuda:  # noqa: N801  a submodule; absent where it was not built
    compiler: str
    architectures: str  # "75 80 90"
    @staticmethod
    def device_error() -> str: ...  # "" where there is a GPU
    @staticmethod
    def loss_workspace(dtype: int, norm: int, real: _Pair, fake: _Pair, /) -> tuple[int, int]: ...
    @staticmethod
    def loss(
        dtype: int,
        norm: int,
        real: _Pair,
        fake: _Pair,
        margin: int,
        margin_value: float,
        loss: int,
        energy_real: int,
        energy_fake: int,
        partials: int,
        counters: int,
        stream: int,
        /,
    ) -> None: ...
    @staticmethod
    def energy_backward(
        dtype: int,
        norm: int,
        pair: _Pair,
        energy: int,
        upstream: int,
        upstream_stride: int,
        stream: int,
        /,
    ) -> None: ...
    @staticmethod
    def hinge(
        acc: int,
        energy_real: int,
        n_real: int,
        energy_fake: int,
        n_fake: int,
        margin: int,
        margin_value: float,
        loss: int,
        grad_real: int,
        grad_fake: int,
        stream: int,
        /,
    ) -> None: ...
    @staticmethod
    def pulling_away_workspace(dtype: int, code: int, stride: int, n: int, d: int, /) -> tuple[int, int]: ...
    @staticmethod
    def pulling_away_forward(
        dtype: int,
        code: int,
        stride: int,
        n: int,
        d: int,
        tf32: bool,
        norms: int,
        gram: int,
        value: int,
        loss: int,
        weight: int,
        weight_value: float,
        partials: int,
        counters: int,
        stream: int,
        /,
    ) -> None: ...
    @staticmethod
    def pulling_away_backward(
        dtype: int,
        code: int,
        stride: int,
        n: int,
        d: int,
        tf32: bool,
        norms: int,
        gram: int,
        upstream: int,
        upstream_value: float,
        grad: int,
        grad_stride: int,
        stream: int,
        /,
    ) -> None: ...
    @staticmethod
    def scale_gradients(
        dtype: int,
        gradients: list[tuple[int, int, int]],  # from, to, count
        upstream: int,
        in_place: bool,
        stream: int,
        /,
    ) -> None: ...
