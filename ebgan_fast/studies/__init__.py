"""The paper's studies, each one command: trials on a shared queue, results in a file, tables and figures out of it.

A module of this folder is a study and ends in its `STUDY`. `framework` has what they share, `networks` and `sets` have
what they train, on what.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .framework.study import Study


def all_studies() -> dict[str, Study[Any]]:
    """Every study by its name, in the order of the files."""
    found = (module for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    names = [module.name for module in found if not module.name.startswith("_")]
    studies: list[Study[Any]] = [importlib.import_module(f"{__name__}.{name}").STUDY for name in names]
    return {study.name: study for study in studies}
