"""The Python code that pages show runs as it stands, and their commands could run."""

from __future__ import annotations

import pytest
import torch

from .commands import complaint
from .pages import BLOCKS, Block, name_of

LANGUAGES = {"python", "sh", "text"}
# The tutorial's blocks share a folder and run in order, in test_tutorial.py.
TUTORIAL = "docs/tutorial.md"


def _params(language: str, but: str = "") -> list[object]:
    found = [block for block in BLOCKS if block.language == language and name_of(block.page) != but]
    return [
        # Blocks that compile take seconds.
        pytest.param(
            block,
            id=f"{name_of(block.page)}-{index}",
            marks=pytest.mark.slow if "torch.compile(" in block.text and language == "python" else (),
        )
        for index, block in enumerate(found)
    ]


def test_every_block_has_a_language() -> None:
    assert {block.language for block in BLOCKS} == LANGUAGES


@pytest.mark.parametrize("block", _params("python", TUTORIAL))
def test_python_runs(block: Block) -> None:
    exec(compile(block.text, name_of(block.page), "exec"), {"__name__": "a_block"})
    if "donated_buffer = False" in block.text:
        torch._functorch.config.donated_buffer = True
    if "Accelerator(" in block.text:  # Accelerate keeps its settings for the whole process
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("block", _params("sh"))
def test_commands_could_run(block: Block) -> None:
    for line in block.text.splitlines():
        assert complaint(line) is None, line


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ebgan-fast train --out x --stepps 3", "ends with status 2"),
        ("ebgan-fast train --out x --steps 3", None),
        ("ebgan-fast train --preset celeba64 --data x --out y --width 0.5", None),
        ("ebgan-fast grid --out x --budget decade", "ends with status 2"),
        ("ebgan-fast trian", "ends with status 2"),
        ("ebgan-fast --help", None),
        ("python -m bench ops --quickly", "ends with status 2"),
        ("python -m bench ops --quick  # a comment", None),
        ("python examples/none.py", "there is no examples/none.py"),
        ("python -m pytest", None),
        ("make demmo", "make has no target demmo"),
        ("make studies BUDGET=hour", None),
        ("pip install torch", "torch without a version"),
        ("pip install '.[trian]'", "there is no extra trian"),
        ("pip install '.[train,studies]'", None),
        ("pip uninstall x", "pip uninstall is not"),
        (
            "OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 -m ebgan_fast train --out x --stepz 3",
            "ends with",
        ),
        ("torchrun --nproc-per-node=2 -m ebgan_fast train --out x", None),
        ("rm -rf /", "unknown program rm"),
    ],
)
def test_commands_that_could_not_are_found(line: str, said: str | None) -> None:
    found = complaint(line)
    assert (found is None) == (said is None), found
    assert said is None or (found or "").startswith(said)
