// A function of a row, applied to many.

#include "lanes.h"

constexpr int MOST_COLUMNS = 256;

// `in` and `out` have so many columns of `rows` numbers each.
extern "C" void apply_to_rows(const T* in, int64_t taken, T* out, int64_t given, int64_t rows) {
  for (int64_t first = 0; first < rows; first += LANES) {
    const int64_t some = rows - first < LANES ? rows - first : LANES;
    V before[MOST_COLUMNS], after[MOST_COLUMNS];
    for (int64_t column = 0; column < taken; column++) before[column] = V::loadu(in + column * rows + first, some);
    apply(before, after);
    for (int64_t column = 0; column < given; column++) after[column].store(out + column * rows + first, some);
  }
}
