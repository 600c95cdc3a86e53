"""Whether this process runs compiled modules, decided once, before the first of them is imported.

``TIDEGATE_NATIVE=0`` switches them off; ``TIDEGATE_NATIVE=1`` makes it an error that there are none. Otherwise they are
taken where they are there and fresh: a build of other sources is never run, whoever forgot to make it anew.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate.native.modules import MODULES, source_of

VARIABLE = "TIDEGATE_NATIVE"
LIBRARY = "tidegate_native"
ROOT = Path(__file__).parents[2]
# Of this interpreter: another one's extension modules cannot be loaded.
BUILT = Path(__file__).parent / "built" / str(sysconfig.get_config_var("SOABI"))
DIGEST_FILE = "sources.sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What this process runs, in words for logs and status, and the folder of the compiled modules if it runs them."""

    folder: Path | None
    words: str

    @property
    def runtime(self) -> str:
        """For labels."""
        return "python" if self.folder is None else "compiled"


def choose(environment: Mapping[str, str], *, built: Path = BUILT, root: Path = ROOT) -> Choice:
    """What to run. Raises ``ImportError`` where compiled modules are asked for and cannot be had."""
    wanted = environment.get(VARIABLE, "")
    if wanted == "0":
        return Choice(folder=None, words=f"pure Python ({VARIABLE}=0)")
    try:
        found = (built / DIGEST_FILE).read_text(encoding="ascii")
    except OSError:
        found = ""
    if found and found == digest(root):
        return Choice(folder=built, words="compiled modules")
    state = "the compiled modules are of other sources" if found else "not compiled"
    if wanted:
        raise ImportError(f"{VARIABLE}={wanted}, but {state}: run `make native`")
    return Choice(folder=None, words=f"pure Python ({state})")


def digest(root: Path = ROOT, modules: Iterable[str] = MODULES) -> str:
    """Names the sources that a build is of."""
    hashed = hashlib.sha256()
    for path in map(source_of, modules):
        source = (root / path).read_bytes()
        hashed.update(f"{path} {len(source)}\n".encode())
        hashed.update(source)
    return hashed.hexdigest()


def search_path(package: str, sources: Iterable[str]) -> list[str]:
    """A package's ``__path__``: its compiled modules first, if they are to be run, then ``sources``."""
    if CHOICE.folder is None:
        return list(sources)
    _load_library(CHOICE.folder)
    return [str(CHOICE.folder.joinpath(*package.split("."))), *sources]


def _load_library(folder: Path) -> None:
    """What the compiled modules are but doors to. They look for it by its name, which is on no path."""
    name = f"{LIBRARY}__mypyc"
    if name in sys.modules:
        return
    (file,) = folder.glob(f"{name}.*")
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no extension module")
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


CHOICE = choose(os.environ)
