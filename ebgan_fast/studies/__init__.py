"""The paper's studies. Each is a command that does trials from a shared queue and writes results, tables and figures.

Each module of this folder is a study, and its last name is `STUDY`. `framework` holds what all studies share,
`networks` the networks that they train, and `sets` their data.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .framework.study import Study


def all_studies() -> dict[str, Study[Any]]:
    """Return every study by its name, in the order of the files."""
    found = (module for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    names = [module.name for module in found if not module.name.startswith("_")]
    studies: list[Study[Any]] = [importlib.import_module(f"{__name__}.{name}").STUDY for name in names]
    return {study.name: study for study in studies}
