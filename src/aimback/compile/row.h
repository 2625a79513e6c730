// What the code that `writer.py` writes is made of, whatever V is.
#pragma once

namespace {

inline V sign(const V& x) {
  const V none = V(T(0)), up = V::blendv(none, V(T(1)), x > none);
  return V::blendv(up, V(T(-1)), x < none);
}

// y += weight x, four entries of y at a time: their sums run side by side.
template <int IN, int OUT>
inline void linear(const T (&weight)[OUT][IN], const V (&x)[IN], V (&y)[OUT]) {
  constexpr int WHOLE = OUT - OUT % 4;
  ROLLED for (int out = 0; out < WHOLE; out += 4) {
    V a = y[out], b = y[out + 1], c = y[out + 2], d = y[out + 3];
    for (int in = 0; in < IN; in++) {
      a = fmadd(V(weight[out][in]), x[in], a);
      b = fmadd(V(weight[out + 1][in]), x[in], b);
      c = fmadd(V(weight[out + 2][in]), x[in], c);
      d = fmadd(V(weight[out + 3][in]), x[in], d);
    }
    y[out] = a, y[out + 1] = b, y[out + 2] = c, y[out + 3] = d;
  }
  for (int out = WHOLE; out < OUT; out++)
    for (int in = 0; in < IN; in++) y[out] = fmadd(V(weight[out][in]), x[in], y[out]);
}

#include STEP

}  // namespace
