"""Find a Triton server on this machine, and what its Python backend needs to run this Python environment."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from traccc_py.errors import ServiceError

__all__ = ["Installation", "check_shell", "find_installation", "package_folder", "version_warning"]

_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_STUB = "triton_python_backend_stub"
_HOW_TO_INSTALL = (
    "use NVIDIA's image (nvcr.io/nvidia/tritonserver), or install a server without containers: "
    "pip install --no-deps nvidia-pytriton==0.7.0"
)


# 2.73 (image 26.09) brought fixes of crashes at the end with custom metrics, and of shared memory left behind.
_OLDEST_UNSUSPECTED = (2, 73)
_PLAIN_PATH = re.compile(r"[\w/.+=:,@%~-]+")
_ALLOCATOR = {"MALLOC_ARENA_MAX": "2"}  # ADR 41


@dataclass(frozen=True, slots=True)
class Installation:
    """A server that can be started.

    Parameters
    ----------
    binary : Path
        The program `tritonserver`.
    backend_files : tuple of Path
        Files that make up the directory of the Python backend; empty: the server has its own directory.
    library_folder : Path, optional
        Folder of this Python's shared library, if it is not on the system's library path.
    """

    binary: Path
    backend_files: tuple[Path, ...] = ()
    library_folder: Path | None = None

    def prepare_backend(self, folder: Path) -> Path | None:
        """Make the backend directory in `folder`; return it, or None if the server's own can be used."""
        if not self.backend_files:
            return None
        target = folder / "python"
        target.mkdir(parents=True, exist_ok=True)
        for file in self.backend_files:
            link = target / file.name
            link.unlink(missing_ok=True)
            link.symlink_to(file)
        return folder

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of the server; its Python processes find this Python through PATH.

        Settings of the memory allocator in `base` are kept.
        """
        values = {**_ALLOCATOR, **base}
        values["PATH"] = _search_path(values)
        if self.library_folder is not None:
            known = values.get("LD_LIBRARY_PATH")
            values["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [str(self.library_folder), known]))
        return values


def _search_path(base: Mapping[str, str]) -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), base.get("PATH", os.defpath)])


def check_shell() -> None:
    """Check that Triton can start its Python processes: by bash, to which it passes their paths without quotes.

    If that fails Triton does not say so, and waits for ever.

    Raises
    ------
    ServiceError
        If there is no bash, or the folder of temporary files has a name that bash would take apart.
    """
    path = _search_path(os.environ)
    if shutil.which("bash", path=path) is None:
        msg = f"no bash was found in PATH ({path}); Triton starts its Python processes with it: install it, or set PATH"
        raise ServiceError(msg)
    folder = tempfile.gettempdir()
    if _PLAIN_PATH.fullmatch(folder) is None:
        msg = (
            f"the folder of temporary files is {folder!r}; expected a path of letters, digits and / . _ - + = : , @ % "
            "~ alone, as Triton passes it to bash without quotes: set TMPDIR to another one"
        )
        raise ServiceError(msg)


def find_installation() -> Installation:
    """Return the server in PATH, else the one in nvidia-pytriton.

    Raises
    ------
    ServiceError
        If there is none, or something it needs is missing; the message says what to install.
    """
    found = shutil.which("tritonserver")
    if found is not None:
        return Installation(Path(found).resolve())
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        msg = f"no tritonserver was found in PATH: {_HOW_TO_INSTALL}"
        raise ServiceError(msg)
    return _carried_by_pytriton(Path(next(iter(spec.submodule_search_locations))) / "tritonserver")


def _carried_by_pytriton(folder: Path) -> Installation:
    binary = folder / "bin" / "tritonserver"
    backend = folder / "backends" / "python"
    stub = folder / "python_backend_stubs" / _VERSION / _STUB
    files = (backend / "libtriton_python.so", backend / "triton_python_backend_utils.py", stub)
    for file in (binary, *files):
        if not file.is_file():
            known = ", ".join(sorted(p.name for p in (folder / "python_backend_stubs").glob("*")))
            msg = f"nvidia-pytriton has no {file}; it supports Python {known or '(none)'}: {_HOW_TO_INSTALL}"
            raise ServiceError(msg)
    return Installation(binary, files, _library_folder())


def _library_folder() -> Path | None:
    """Return the folder of this Python's shared library; the server's Python processes are linked to it.

    It must be this Python's own: another build, such as the system's, may have another patch level.
    """
    name = f"libpython{_VERSION}.so.1.0"
    folder = Path(sysconfig.get_config_var("LIBDIR") or "")
    for place in (folder / (sysconfig.get_config_var("MULTIARCH") or ""), folder):
        if (place / name).is_file():
            return place
    is_systems = Path(sys.base_prefix) == Path("/usr")
    cure = (
        f"apt-get install libpython{_VERSION} (Debian, Ubuntu) or dnf install python3-libs (Fedora, RHEL)"
        if is_systems
        else f"this Python ({sys.base_prefix}) was built without it; make the environment with another one, such as "
        f"the system's python3 after apt-get install libpython{_VERSION}, or one built with --enable-shared"
    )
    msg = f"the server needs {name}, which is not in {folder}: {cure}"
    raise ServiceError(msg)


def version_warning(version: str) -> str | None:
    """Return why a server of this version, such as "2.51.0", is not for untrusted clients, None if it is not old."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or tuple(map(int, found.groups())) >= _OLDEST_UNSUSPECTED:
        return None
    newer = ".".join(map(str, _OLDEST_UNSUSPECTED))
    return (
        f"Triton {version} can be crashed by small malformed requests, and ends badly now and then: let only trusted "
        f"clients reach it, or a proxy (docs/operations.md), and use {newer} or newer where you can"
    )


def package_folder() -> Path | None:
    """Return the folder that must be added to the path to import this package, or None if it is installed.

    The server's Python processes ignore PYTHONPATH.
    """
    folder = Path(__file__).resolve().parents[2]
    installed = {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")}
    return None if folder in installed else folder


def _main() -> int:
    """Print which server was found, or what is missing."""
    try:
        message, code = f"Triton server: {find_installation().binary}", 0
    except ServiceError as error:
        message, code = f"no Triton server can be run: {error}", 1
    sys.stdout.write(f"{message}\n")
    return code


if __name__ == "__main__":
    sys.exit(_main())
