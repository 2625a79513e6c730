"""What a process takes from its surroundings: settings decide a result, the variables of a library do not.

PyTorch, the libraries below it, Lightning, Hydra, Matplotlib and Python itself read hundreds of environment
variables. Some choose other instructions or precisions and so other bits, some end a run. Those are taken away here,
by prefix, before any of these libraries is loaded. Everything else stays: which devices there are
(`CUDA_VISIBLE_DEVICES`), where MLflow is, what DVC says, a proxy, and what a simulator of the user's own may need.

Imports no library, so that it can run before all of them.
"""

import os
import re
import sys

_TAKEN_AWAY = re.compile(
    "|".join(
        (
            # Linear algebra and threads.
            "ACCELERATE_|ATEN_|BLIS_|CUBLAS|CUDNN|DNNL_|GLOO_|GOMP_|GOTO_|INTEL_MKL_|KMP_|LIBOMP_|MKL|NCCL_|NPY_|NUMPY_",
            "OMP_|ONEDNN_|OPENBLAS_|SCIPY_|TBB_|VECLIB_|LRU_CACHE_CAPACITY$",
            "CUDA_(FORCE|DISABLE)_PTX_JIT$|CUDA_LAUNCH_BLOCKING$|CUDA_MODULE_LOADING$|NVIDIA_TF32_OVERRIDE$",
            # PyTorch and its compilers.
            "AOT|C10_|CAFFE2_|CUTLASS_|FX_|HALIDE_|INDUCTOR_|KINETO_|PJRT_|PT2?_|PYTORCH_|THP_|TORCH|TPU_|TRITON_|XLA_",
            # Lightning, and whoever starts many processes of one training.
            "LIGHTN?ING_|LT_|PL_|(GLOBAL_|GROUP_|LOCAL_|NODE_|ROLE_)?RANK$|(GROUP_|LOCAL_|ROLE_)?WORLD_SIZE$|MASTER_(ADDR|PORT)$",
            # Hydra and the figures.
            "HYDRA_|SELF_WARNING_AS_ERROR$|FREETYPE_|MATPLOTLIB|MPL|PLOTLY_|SOURCE_DATE_EPOCH$",
            # The C library and Python, but for where its modules lie and how it writes its own files.
            "GLIBC_TUNABLES$|MALLOC_",
            "PYTHON(?!(PATH|HOME|USERBASE|NOUSERSITE|SAFEPATH|PLATLIBDIR|PYCACHEPREFIX|DONTWRITEBYTECODE|UNBUFFERED)$)",
        )
    )
)
# PyTorch is told the number of threads by the settings, for others this is the only way.
_GIVEN = {"OMP_NUM_THREADS": "1"}
_MARK = "aimback_clean"


def clean(environment: dict[str, str]) -> dict[str, str]:
    """An environment without what could change a result."""
    return {name: value for name, value in environment.items() if not _TAKEN_AWAY.match(name)} | _GIVEN


def start_clean() -> None:
    """Start this program anew, as the same process, if its environment holds what is to be taken away.

    Only so does it help against what the C library and Python read before they run any code of ours.
    """
    kept = clean(dict(os.environ))
    # The mark prevents a circle where something sets a variable at each start.
    if os.environ.keys() - kept.keys() and _MARK not in sys._xoptions:
        os.execve(sys.executable, [sys.executable, "-X", _MARK, *sys.orig_argv[1:]], kept)
    for name in os.environ.keys() - kept.keys():
        del os.environ[name]
    os.environ.update(kept)
