"""The instructions of benchmarks/counts.py beside those that the compiler makes of the kernels' own functions."""

from __future__ import annotations

import functools
import os
import platform
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.counts import INSTRUCTIONS

_COMPILER = shlex.split(os.environ.get("CXX") or "c++")
_FLAGS = ["-std=c++20", "-O3", "-ffp-contract=fast", "-w"]  # as in build_backend/compile_rules.py, without warnings
pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="counts instructions of x86-64"),
    pytest.mark.skipif(shutil.which(_COMPILER[0]) is None, reason="no C++ compiler"),
]
_SOURCES = Path(__file__).parents[2] / "csrc/cpu"

# A vector of units each, from memory to memory, as the kernels have them in their loops.
_FUNCTIONS = """
using S = Simd<float>;
using V = S::V;
constexpr int64_t L = S::kLanes;

static TEXTCLF_INLINE auto cell_state(const float* product, const float* table, const float* c) {
  V gates[4];
  for (int g = 0; g < 4; ++g) gates[g] = S::load(product + g * L) + S::load(table + g * L);
  return Cell<float>::state(gates, S::load(c));
}
extern "C" void forward(const float* product, const float* table, float* c, float* h) {
  const auto at = cell_state(product, table, c);
  S::store(c, at.c), S::store(h, Cell<float>::output(at.c, at.one_o).h);
}
extern "C" void forward_saving(const float* product, const float* table, float* c, float* h, float* saved) {
  const auto at = cell_state(product, table, c);
  const auto out = Cell<float>::output(at.c, at.one_o);
  S::store(c, at.c), S::store(h, out.h);
  S::store(saved, at.i), S::store(saved + L, at.f), S::store(saved + 2 * L, at.g), S::store(saved + 3 * L, out.o);
}
extern "C" void backward(const float* grad_h, const float* grad_output, const float* saved, const float* c,
                         const float* c_before, float* grad_c, float* grad_gates) {
  const CellGradients<float> grads(S::load(saved), S::load(saved + L), S::load(saved + 2 * L), S::load(saved + 3 * L),
                                   Cell<float>::tanh(S::load(c)), S::load(grad_h) + S::load(grad_output),
                                   S::load(grad_c));
  S::store(grad_c, grads.by_c()), S::store(grad_gates, grads.by_i());
  S::store(grad_gates + L, grads.by_f(S::load(c_before)));
  S::store(grad_gates + 2 * L, grads.by_g()), S::store(grad_gates + 3 * L, grads.by_o());
}
extern "C" void int8_product(const int8_t* w, const int8_t* h, Ints* sums) {
  const Ints four = broadcast_four(h);
  Ints found[4];
  for (int g = 0; g < 4; ++g) found[g] = add_products(sums[g], load_ints(w + g * sizeof(Ints)), four);
  for (int g = 0; g < 4; ++g) sums[g] = found[g];
}
"""


@functools.cache
def _count(isa: str) -> dict[str, int]:
    """Arithmetic on vectors in each function, by name."""
    kernels = (_SOURCES / f"kernels_{isa}.cpp").read_text(encoding="utf-8")
    include = '#include "lstm_int8.inl"\n'  # the cell comes with it
    source = kernels.partition(include)[0] + include + "}\n" + _FUNCTIONS + "}\nTEXTCLF_TARGET_END\n#endif\n"
    command = [*_COMPILER, *_FLAGS, f"-I{_SOURCES}", "-xc++", "-S", "-o-", "-"]
    assembly = subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout
    counts = {}
    for name in ("forward", "forward_saving", "backward", "int8_product"):
        body = re.search(rf"^{name}:.*?\.cfi_endproc", assembly, re.DOTALL | re.MULTILINE)
        assert body
        found = re.findall(r"^\s+(v\w+)", body[0], re.MULTILINE)
        counts[name] = sum(not re.match(r"vmov|vp?broadcast|vp?insr|vzeroupper", mnemonic) for mnemonic in found)
    return counts


@pytest.mark.parametrize(
    ("isa", "kernels"),
    [("avx2", "avx2"), ("avx512vnni", "avx512"), ("avx512vnni", "avx512_bf16"), ("avx512vnni", "amx")],
)
def test_instructions(isa: str, kernels: str) -> None:
    """To within two: compilers differ in what they do with a sign or a constant."""
    want, counts = INSTRUCTIONS[kernels], _count(isa)
    assert counts["forward"] == pytest.approx(want.forward, abs=2)
    assert counts["forward_saving"] - counts["forward"] == pytest.approx(want.saving, abs=1)
    assert counts["backward"] == pytest.approx(want.backward, abs=2)
    assert counts["int8_product"] / 4 == pytest.approx(want.int8_product, abs=0.25)
