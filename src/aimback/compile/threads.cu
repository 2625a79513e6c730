// A whole solve of many rows, each in a thread of its own: a thread whose row has stopped takes the next one.
//
// STEP holds `apply`, one step of a row, and how many columns it takes and returns.

#include "number.h"

using Count = unsigned long long;

// Args:
//   columns, most, steps, status, path, kept: see `lanes.cpp`.
//   next: the first row that no thread has taken yet; 0 before.
extern "C" __global__ void solve(T* columns, Count rows, Count most, T* steps, T* status, T* path, Count kept,
                                 Count* next) {
  V in[1 + COLUMNS], out[COLUMNS + 2];
  Count row, step;
  const auto take_next = [&] {
    row = atomicAdd(next, Count(1));
    step = 0;
    if (row >= rows) return;
    for (int column = 0; column < COLUMNS; column++) in[1 + column] = V(columns[column * rows + row]);
  };

  take_next();
  // One loop for rows and steps, so that a thread does not wait for its neighbours' rows to stop.
  while (row < rows) {
    in[0] = V(T(step));
    apply(in, out);
    for (int column = 0; column < COLUMNS; column++) in[1 + column] = out[column];
    if (row < kept)
      for (int column = 0; column < PLACE; column++)
        path[(step * kept + row) * PLACE + column] = out[FIRST_PLACE + column].x;
    if (out[COLUMNS].x != 0 && step < most) {
      step++;
      continue;
    }
    for (int column = 0; column < COLUMNS; column++) columns[column * rows + row] = out[column].x;
    steps[row] = T(step);
    status[row] = out[COLUMNS + 1].x;
    take_next();
  }
}
