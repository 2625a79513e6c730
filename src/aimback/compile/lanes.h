// As many rows at once as there are lanes in two registers of a CPU core.
#pragma once

#include <ATen/cpu/vec/vec.h>

#include <cstdint>
#include <limits>

using T = SCALAR;
// Two registers: while one waits for a division, the other one's goes on.
using V = at::vec::VectorizedN<T, 2>;

#define TABLE static const
#define ROLLED

namespace {

constexpr int LANES = V::size();
constexpr T MOST = std::numeric_limits<T>::max();
const V NONE = V(T(0)) != V(T(0)), ALL = V(T(0)) == V(T(0));  // masks

inline bool some(const V& mask) {
  const auto either = mask[0] | mask[1];
  return either.zero_mask() != (1 << either.size()) - 1;
}

}  // namespace

#include "row.h"
