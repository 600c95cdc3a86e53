"""``python -m tidegate.native``: compile the modules, unless that was done for these sources already.

Needs mypy, setuptools and the development group's type stubs, a C compiler and the interpreter's headers, and runs in
the root of the repository, whose pyproject.toml has mypy's settings. Where something is missing it says so, and all
that follows is that pure Python runs; with ``--require`` that is an error.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from tidegate.native.choice import BUILT, DIGEST_FILE, LIBRARY, ROOT, digest
from tidegate.native.modules import MODULES, source_of

# Of mypy as it compiles; as it checks it has another, and either would throw the other's away.
_CACHE = Path("build") / "native-cache"

_SETUP = """
import os
import sys
from mypyc.build import mypycify
from setuptools import setup

library, *arguments = sys.argv[1:]
extensions = mypycify(arguments[3:], opt_level="2", debug_level="0", group_name=library, target_dir=arguments[0])
for extension in extensions:
    extension.extra_compile_args.append("-Wno-all")  # to warn of generated code takes as long as to compile it
command = ["build_ext", "--build-lib", arguments[1], "--build-temp", arguments[2], "--parallel", str(os.cpu_count())]
setup(name=library, packages=[], ext_modules=extensions, script_args=["--quiet", *command])
"""


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tidegate.native", description=__doc__)
    parser.add_argument("--into", type=Path, default=BUILT, help="folder of the compiled modules")
    parser.add_argument("--require", action="store_true", help="fail where it cannot be done")
    options = parser.parse_args()
    if _is_fresh(options.into):
        return 0
    missing = _missing()
    if missing is not None:
        sys.stderr.write(f"nothing is compiled, and pure Python will run: there is no {missing}\n")
        return 1 if options.require else 0
    sys.stderr.write("Compiling what runs for every token and request; two minutes, once for each change of it.\n")
    return _build(options.into)


def _is_fresh(into: Path) -> bool:
    file = into / DIGEST_FILE
    return file.exists() and file.read_text(encoding="ascii") == digest()


def _missing() -> str | None:
    compiler = str(sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"C compiler ({compiler})"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python.h (Debian: python3-dev)"
    return next((name for name in ("mypyc", "setuptools") if importlib.util.find_spec(name) is None), None)


def _build(into: Path) -> int:
    sources = digest()
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as scratch:
        c, modules, objects = (str(Path(scratch) / name) for name in ("c", "modules", "objects"))
        paths = [source_of(module) for module in MODULES]
        command = [sys.executable, "-c", _SETUP, LIBRARY, c, modules, objects, f"--cache-dir={ROOT / _CACHE}", *paths]
        done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)  # noqa: S603
        if done.returncode:
            sys.stderr.write(done.stdout)
            return done.returncode
        Path(modules, DIGEST_FILE).write_text(sources, encoding="ascii")
        shutil.rmtree(into, ignore_errors=True)
        Path(modules).rename(into)
    return 0


if __name__ == "__main__":
    sys.exit(main())
