// V, the numbers of two registers of an x86 processor, with the names that torch's own vectors give to what is done to
// them: those do the same on every processor, but a C++ compiler takes two seconds to read their header.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define PASTE(A, B) A##B
#define JOIN(A, B) PASTE(A, B)
#define SUFFIX_double pd
#define SUFFIX_float ps
#if defined(CPU_CAPABILITY_AVX512)
#define BYTES 64
#define INTRINSIC(NAME) JOIN(_mm512_##NAME##_, JOIN(SUFFIX_, SCALAR))
#define ROUND INTRINSIC(roundscale)
#define WIDTH_double d8
#define WIDTH_float f16
#else
#define BYTES 32
#define INTRINSIC(NAME) JOIN(_mm256_##NAME##_, JOIN(SUFFIX_, SCALAR))
#define ROUND INTRINSIC(round)
#define WIDTH_double d4
#define WIDTH_float f8
#endif

// What libtorch_cpu has, and the bound of its error in tenths of a unit in the last place. As in torch's vectors.
#define BOUND_double _u10
#define BOUND_float _u35
#define SLEEF(NAME, BOUND) JOIN(JOIN(Sleef_##NAME, JOIN(WIDTH_, SCALAR)), BOUND)
#define EACH_OF_ONE(DO)                                                                                          \
  DO(acos, _u10) DO(asin, _u10) DO(atan, _u10) DO(cos, JOIN(BOUND_, SCALAR)) DO(erf, _u10) DO(exp, _u10) \
  DO(expm1, _u10) DO(log, _u10) DO(log1p, _u10) DO(sin, JOIN(BOUND_, SCALAR)) DO(tanh, _u10)
#define EACH_OF_TWO(DO) DO(atan2, _u10) DO(hypot, _u05) DO(pow, _u10)

typedef SCALAR Register __attribute__((vector_size(BYTES)));
typedef decltype(Register() < Register()) Bits;

extern "C" {
#define DECLARE(NAME, BOUND) Register SLEEF(NAME, BOUND)(Register);
EACH_OF_ONE(DECLARE)
#undef DECLARE
#define DECLARE(NAME, BOUND) Register SLEEF(NAME, BOUND)(Register, Register);
EACH_OF_TWO(DECLARE)
#undef DECLARE
}

// In a long program GCC would call each of them.
#define INLINE __attribute__((always_inline)) inline

namespace {

struct V {
  Register a, b;

  V() = default;
  INLINE explicit V(SCALAR x) : a(x - Register{}), b(a) {}
  INLINE V(Register a, Register b) : a(a), b(b) {}

  static constexpr int size() { return 2 * BYTES / sizeof(SCALAR); }
  static V loadu(const SCALAR* from, int64_t count = size()) {
    V x(0);
    std::memcpy(&x, from, count * sizeof(SCALAR));
    return x;
  }
  void store(SCALAR* to, int64_t count = size()) const { std::memcpy(to, this, count * sizeof(SCALAR)); }
  // `y` where the mask is set.
  INLINE static V blendv(const V& x, const V& y, const V& mask) {
    return {Bits(mask.a) ? y.a : x.a, Bits(mask.b) ? y.b : x.b};
  }

#define DEFINE(NAME, BOUND) \
  INLINE V NAME() const { return {SLEEF(NAME, BOUND)(a), SLEEF(NAME, BOUND)(b)}; }
  EACH_OF_ONE(DEFINE)
#undef DEFINE
#define DEFINE(NAME, BOUND) \
  INLINE V NAME(const V& y) const { return {SLEEF(NAME, BOUND)(a, y.a), SLEEF(NAME, BOUND)(b, y.b)}; }
  EACH_OF_TWO(DEFINE)
#undef DEFINE
#define DEFINE(NAME, WAY) \
  INLINE V NAME() const { return {ROUND(a, WAY | _MM_FROUND_NO_EXC), ROUND(b, WAY | _MM_FROUND_NO_EXC)}; }
  DEFINE(ceil, _MM_FROUND_TO_POS_INF)
  DEFINE(floor, _MM_FROUND_TO_NEG_INF)
  DEFINE(round, _MM_FROUND_TO_NEAREST_INT)
  DEFINE(trunc, _MM_FROUND_TO_ZERO)
#undef DEFINE
  INLINE V sqrt() const { return {INTRINSIC(sqrt)(a), INTRINSIC(sqrt)(b)}; }
  INLINE V neg() const { return {-a, -b}; }
  INLINE V abs() const {
    const Bits sign = Bits(-Register{});
    return {Register(Bits(a) & ~sign), Register(Bits(b) & ~sign)};
  }
};

#define DEFINE(SIGN) \
  INLINE V operator SIGN(const V& x, const V& y) { return {Register(x.a SIGN y.a), Register(x.b SIGN y.b)}; }
DEFINE(+)
DEFINE(-)
DEFINE(*)
DEFINE(/)
DEFINE(==)
DEFINE(!=)
DEFINE(<)
DEFINE(<=)
DEFINE(>)
DEFINE(>=)
#undef DEFINE
#define DEFINE(SIGN)                                                                 \
  INLINE V operator SIGN(const V& x, const V& y) {                                   \
    return {Register(Bits(x.a) SIGN Bits(y.a)), Register(Bits(x.b) SIGN Bits(y.b))}; \
  }
DEFINE(&)
DEFINE(|)
DEFINE(^)
#undef DEFINE

INLINE V fmadd(const V& x, const V& y, const V& z) {
  return {INTRINSIC(fmadd)(x.a, y.a, z.a), INTRINSIC(fmadd)(x.b, y.b, z.b)};
}

// The instructions return their second number where either is NaN.
INLINE V maximum(const V& x, const V& y) {
  return V::blendv({INTRINSIC(max)(x.a, y.a), INTRINSIC(max)(x.b, y.b)}, x, x != x);
}

INLINE V minimum(const V& x, const V& y) {
  return V::blendv({INTRINSIC(min)(x.a, y.a), INTRINSIC(min)(x.b, y.b)}, x, x != x);
}

INLINE V clamp(const V& x, const V& least, const V& greatest) { return minimum(maximum(x, least), greatest); }

inline bool some(const V& mask) {
#if defined(CPU_CAPABILITY_AVX512)
  const auto either = __m512i(Bits(mask.a) | Bits(mask.b));
  return _mm512_test_epi64_mask(either, either);
#else
  const auto either = __m256i(Bits(mask.a) | Bits(mask.b));
  return !_mm256_testz_si256(either, either);
#endif
}

}  // namespace
