// One row at a time: what a thread of a GPU works on. A CPU compiles it too, so that its tests need no GPU.
#pragma once

using T = SCALAR;

#ifdef __CUDACC_RTC__
#define ROLLED _Pragma("unroll 1")  // or else a layer of 64 by 64 becomes 4096 instructions
#define INFINITY (1.0 / 0.0)
#define NAN (0.0 / 0.0)
#else
#include <math.h>
#define ROLLED
#define TABLE static const
#define __global__
#define atomicAdd(sum, more) __atomic_fetch_add(sum, more, __ATOMIC_RELAXED)
#endif

namespace {

constexpr T MOST = T(sizeof(T) == 8 ? 0x1.fffffffffffffp+1023 : 0x1.fffffep+127);

// A mask is 1 or 0.
struct V {
  T x;

  V() = default;
  explicit V(T x) : x(x) {}

  V abs() const { return V(::fabs(x)); }
  V acos() const { return V(::acos(x)); }
  V asin() const { return V(::asin(x)); }
  V atan() const { return V(::atan(x)); }
  V atan2(V other) const { return V(::atan2(x, other.x)); }
  V ceil() const { return V(::ceil(x)); }
  V cos() const { return V(::cos(x)); }
  V erf() const { return V(::erf(x)); }
  V exp() const { return V(::exp(x)); }
  V expm1() const { return V(::expm1(x)); }
  V floor() const { return V(::floor(x)); }
  V hypot(V other) const { return V(::hypot(x, other.x)); }
  V log() const { return V(::log(x)); }
  V log1p() const { return V(::log1p(x)); }
  V neg() const { return V(-x); }
  V pow(V other) const { return V(::pow(x, other.x)); }
  V round() const { return V(::rint(x)); }  // to the even one of two that are as near, as torch does
  V sin() const { return V(::sin(x)); }
  V sqrt() const { return V(::sqrt(x)); }
  V tanh() const { return V(::tanh(x)); }
  V trunc() const { return V(::trunc(x)); }

  static V blendv(V otherwise, V where, V mask) { return mask.x != 0 ? where : otherwise; }
};

#define NONE V(T(0))
#define ALL V(T(1))

inline V operator+(V a, V b) { return V(a.x + b.x); }
inline V operator-(V a, V b) { return V(a.x - b.x); }
inline V operator*(V a, V b) { return V(a.x * b.x); }
inline V operator/(V a, V b) { return V(a.x / b.x); }
inline V operator==(V a, V b) { return V(T(a.x == b.x)); }
inline V operator!=(V a, V b) { return V(T(a.x != b.x)); }
inline V operator<(V a, V b) { return V(T(a.x < b.x)); }
inline V operator<=(V a, V b) { return V(T(a.x <= b.x)); }
inline V operator>(V a, V b) { return V(T(a.x > b.x)); }
inline V operator>=(V a, V b) { return V(T(a.x >= b.x)); }
inline V operator&(V a, V b) { return V(T(a.x != 0 && b.x != 0)); }
inline V operator|(V a, V b) { return V(T(a.x != 0 || b.x != 0)); }
inline V operator^(V a, V b) { return V(T((a.x != 0) != (b.x != 0))); }

inline V fmadd(V a, V b, V c) { return V(::fma(a.x, b.x, c.x)); }
// As torch's, they hand on NaN.
inline V maximum(V a, V b) { return a.x != a.x || a.x > b.x ? a : b; }
inline V minimum(V a, V b) { return a.x != a.x || a.x < b.x ? a : b; }
inline V clamp(V a, V least, V most) { return minimum(maximum(a, least), most); }
inline bool some(V mask) { return mask.x != 0; }

}  // namespace

#include "row.h"
