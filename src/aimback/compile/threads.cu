// A whole solve of many rows, each in a thread of its own: a thread whose row has stopped takes the next one.
//
// STEP: see `lanes.cpp`.

#include "number.h"

using Count = long long;

// Args: see `lanes.cpp`.
extern "C" __global__ void solve(const T* targets, const T* conditions, const T* starts, T* best, T* miss, int* reached,
                                 int* steps, signed char* status, T* path, unsigned long long* tally, Count rows,
                                 Count each, Count kept, Count place, Count most) {
  V in[1 + COLUMNS], out[COLUMNS + 2];
  Count row, step, evaluations = 0;
  const auto take_next = [&] {
    row = Count(atomicAdd(tally, 1ull));
    step = 0;
    if (row >= rows) return;
    for (int column = 0; column < COLUMNS; column++) in[1 + column] = V(BEFORE[column]);
    const Count target = row / each;
    for (int i = 0; i < OUTCOMES; i++) in[1 + i] = V(targets[target * OUTCOMES + i]);
    for (int i = 0; i < CONDITIONS; i++) in[1 + OUTCOMES + i] = V(conditions[target * CONDITIONS + i]);
    for (int i = 0; i < CONTROLS; i++) in[1 + FIRST_PLACE + i] = in[1 + BEST + i] = V(starts[row * CONTROLS + i]);
  };

  take_next();
  // One loop for rows and steps, so that a thread does not wait for its neighbours' rows to stop.
  while (row < rows) {
    in[0] = V(T(step));
    apply(in, out);
    for (int column = 0; column < COLUMNS; column++) in[1 + column] = out[column];
    if (row < kept)
      for (Count i = 0; i < place; i++) path[(step * kept + row) * place + i] = out[FIRST_PLACE + i].x;
    if (out[COLUMNS].x != 0 && step < most) {
      step++;
      continue;
    }
    for (int i = 0; i < CONTROLS; i++) best[row * CONTROLS + i] = out[BEST + i].x;
    miss[row] = out[MISS].x;
    reached[row] = int(out[REACHED].x);
    steps[row] = int(step);
    status[row] = (signed char)(out[COLUMNS + 1].x);
    evaluations += step + 1;
    take_next();
  }
  if (evaluations > 0) atomicAdd(tally + 1, (unsigned long long)(evaluations));
}
