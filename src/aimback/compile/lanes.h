// As many rows at once as there are lanes in two registers of a CPU core.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

using T = SCALAR;

#define TABLE static const
#define ROLLED

// Of two registers: while one waits for a division, the other one's goes on.
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
#include "x86.h"
#else
#include <ATen/cpu/vec/vec.h>

using V = at::vec::VectorizedN<T, 2>;

inline bool some(const V& mask) {
  const auto either = mask[0] | mask[1];
  return either.zero_mask() != (1 << either.size()) - 1;
}
#endif

namespace {

constexpr int LANES = V::size();
constexpr T MOST = std::numeric_limits<T>::max();
const V NONE = V(T(0)) != V(T(0)), ALL = V(T(0)) == V(T(0));  // masks

}  // namespace

#include "row.h"
