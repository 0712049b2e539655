"""The environment variables that steer the build. A value that is not understood is an error, never a guess."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .errors import BuildError

_ARCH = re.compile(r"(?P<major>\d+)\.(?P<minor>\d)(?P<feature>[af]?)(?P<ptx>\+PTX)?")


def cuda_mode(environ: Mapping[str, str]) -> str:
    """What TEXTCLF_FAST_CUDA asks for: "auto" (also where unset or empty), "0" or "1"."""
    value = environ.get("TEXTCLF_FAST_CUDA") or "auto"
    if value not in ("auto", "0", "1"):
        raise BuildError(
            f"TEXTCLF_FAST_CUDA={value!r} is not understood: use auto (CUDA where a fitting nvcc is), 0 (never) or 1 "
            "(required)"
        )
    return value


def max_jobs(environ: Mapping[str, str]) -> int | None:
    """How many compilers may run at once; None where MAX_JOBS is unset: ninja then goes by the number of cores."""
    value = environ.get("MAX_JOBS") or ""
    if not value:
        return None
    if not value.isdecimal() or int(value) < 1:
        raise BuildError(f"MAX_JOBS={value!r} is not understood: use a whole number of at least 1")
    return int(value)


def cuda_architectures(environ: Mapping[str, str]) -> list[str] | None:
    """The entries of TORCH_CUDA_ARCH_LIST, such as ["8.0", "9.0+PTX"]; None where it is unset or empty."""
    value = environ.get("TORCH_CUDA_ARCH_LIST") or ""
    entries = [entry for entry in re.split(r"[;,\s]+", value) if entry]
    for entry in entries:
        if not _ARCH.fullmatch(entry):
            raise BuildError(
                f"TORCH_CUDA_ARCH_LIST={value!r}: {entry!r} is not understood: use numbers separated by ';', each with "
                "+PTX or without, such as '8.0;9.0+PTX'"
            )
    return entries or None


def gencode_flags(architectures: list[str]) -> list[str]:
    """nvcc's flags for entries like "8.0" (machine code) and "9.0+PTX" (machine code, and PTX for later GPUs)."""
    flags = []
    for entry in architectures:
        match = _ARCH.fullmatch(entry)
        assert match is not None, entry
        number = match["major"] + match["minor"] + match["feature"]
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if match["ptx"]:
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags
