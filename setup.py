"""Builds the extension: the CPU backend once for each instruction set, everything else once; and
beside it, where it is of use, the CUDA backend.

LONGNET_CUDA=auto (the default) builds the CUDA backend where there is an NVIDIA driver, and nvcc on
the PATH or in CUDA_HOME, and goes on without it where it cannot; 1 fails instead, and needs no
driver; 0 leaves it out.
"""

import ctypes
import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).parent
X86 = platform.machine().lower() in ("x86_64", "amd64")

COMMON_FLAGS = [
    "-std=gnu17",
    "-O3",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    "-Werror=implicit-function-declaration",
    "-Werror=incompatible-pointer-types",
]
AVX2_FLAGS = ["-mavx2", "-mfma", "-mf16c"]
AVX512_FLAGS = [
    *AVX2_FLAGS,
    *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"),
]
# The builds of csrc/cpu; csrc/core/backend.c chooses one of them at run time.
INSTRUCTION_SETS = {"scalar": []}
if X86:
    INSTRUCTION_SETS |= {"avx2": AVX2_FLAGS, "avx512": AVX512_FLAGS}

CUDA_LIBRARY = "liblongnet_cuda.so"
NVCC_FLAGS = ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall"]
# Later GPUs compile the PTX of compute_80 when they first meet it.
SM80_FLAGS = ["-gencode=arch=compute_80,code=[sm_80,compute_80]"]
SM90_FLAGS = ["-gencode=arch=compute_90a,code=sm_90a"]


class BuildExtension(build_ext):
    """Compiles in parallel, anew only what is older than its source or a header it includes."""

    def run(self):
        choice, nvcc = cuda_choice()
        super().run()
        self.build_cuda(choice, nvcc)

    def build_extension(self, ext):
        jobs = []
        for source in ext.sources:
            sets = INSTRUCTION_SETS if source.startswith("csrc/cpu/") else {"common": []}
            jobs += [(source, name, flags) for name, flags in sets.items()]

        def compile_one(job):
            source, name, flags = job
            folder = Path(self.build_temp) / name
            target = (folder / source).with_suffix(".o")
            if self.force or is_stale(target):
                self.compiler.compile(
                    [source],
                    output_dir=str(folder),
                    macros=[*ext.define_macros, ("LNET_ISA", name)],
                    include_dirs=ext.include_dirs,
                    extra_postargs=[*COMMON_FLAGS, *flags, "-MMD", "-MF", f"{target}.d"],
                )
            return str(target)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, jobs))
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(ext.name),
            libraries=ext.libraries,
            extra_postargs=ext.extra_link_args,
            build_temp=self.build_temp,
        )

    def build_cuda(self, choice, nvcc):
        """Puts the CUDA backend beside the extension, as LONGNET_CUDA says."""
        target = Path("longnet" if self.inplace else self.build_lib + "/longnet") / CUDA_LIBRARY
        if nvcc is None:
            target.unlink(missing_ok=True)  # one of an earlier build would not fit the extension
            return
        try:
            self.compile_cuda(nvcc, target)
        except subprocess.CalledProcessError as error:
            target.unlink(missing_ok=True)
            if choice == "1":
                raise CompileError(f"LONGNET_CUDA=1: {nvcc} failed: {error}") from None
            self.warn(f"the CUDA backend is left out: {nvcc} failed; LONGNET_CUDA=1 insists on it")

    def compile_cuda(self, nvcc, target):
        sources = sorted(ROOT.glob("cuda/*.cu"))
        folder = Path(self.build_temp) / "cuda"
        folder.mkdir(parents=True, exist_ok=True)

        def compile_one(source):
            found = folder / f"{source.stem}.o"
            if self.force or is_stale(found):
                run_nvcc(
                    [nvcc, *NVCC_FLAGS, *architectures(source), f"-I{ROOT}", f"-I{ROOT}/csrc"],
                    ["-MMD", "-MF", f"{found}.d", "-c", str(source), "-o", str(found)],
                )
            return found

        # attention's instances take longest, then the largest files: they begin first
        sources.sort(key=lambda s: ("attention" not in s.stem, -s.stat().st_size))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, sources))
        run_nvcc(
            [nvcc, "-shared", "-cudart=static", "-Xlinker=--no-undefined"],
            [*map(str, objects), "-ldl", "-o", str(target)],
        )


def is_stale(target):
    """Whether a file that an object was made of, as the compiler listed them, is newer than it."""
    listing = Path(f"{target}.d")
    if not target.exists() or not listing.exists():
        return True
    # gcc writes "target: files", nvcc "target : files"
    files = listing.read_text().replace("\\\n", " ").partition(":")[2].split()
    made = target.stat().st_mtime
    return any(not Path(f).exists() or Path(f).stat().st_mtime > made for f in files)


def cuda_choice():
    """LONGNET_CUDA, and the nvcc to build with or None."""
    choice = os.environ.get("LONGNET_CUDA", "") or "auto"
    if choice not in ("auto", "0", "1"):
        raise CompileError(f"LONGNET_CUDA={choice}: expected auto, 0 or 1")
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")
    if choice == "1" and nvcc is None:
        raise CompileError(f"LONGNET_CUDA=1: no nvcc on the PATH, nor in {home}/bin")
    # its kernels take minutes on two cores, so not where nothing can run them
    wanted = choice == "1" or (choice == "auto" and has_driver())
    return choice, nvcc if wanted else None


def has_driver():
    """Whether this machine has NVIDIA's driver."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def architectures(source):
    """A file named for Hopper is compiled for it alone."""
    return SM90_FLAGS if source.stem.endswith("_sm90") else SM80_FLAGS + SM90_FLAGS


def run_nvcc(command, arguments):
    nice = ["nice"] if shutil.which("nice") else []
    subprocess.run([*nice, *command, *arguments], check=True)


setup(
    ext_modules=[
        Extension(
            "longnet._core",
            sources=sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/*/*.c")),
            include_dirs=["csrc", numpy.get_include()],
            define_macros=[
                ("Py_LIMITED_API", "0x030B0000"),
                ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
                ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
                *([("LNET_X86", "1")] if X86 else []),
            ],
            libraries=["m", "pthread", "dl"],
            py_limited_api=True,
        )
    ],
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
