// A whole solve of many rows, each in a lane of its own: a lane whose row has stopped takes the next one.
//
// STEP holds `apply`, one step of a row; how many COLUMNS it takes and returns, and where among them is what; and what
// they hold BEFORE the first step, but for what is asked of a row and where it starts.

#include <algorithm>

#include "lanes.h"

constexpr int64_t TAKEN = 256;  // rows at once: so threads seldom meet, and end together

// Args:
//   targets to tally: see `Buffers`. Threads may call this with the same ones at once: they share the rows.
//   each: rows of a target; kept: the paths of so many rows are kept, of each place so many numbers; most: steps.
extern "C" void solve(const T* targets, const T* conditions, const T* starts, T* best, T* miss, int32_t* reached,
                      int32_t* steps, int8_t* status, T* path, int64_t* tally, int64_t rows, int64_t each, int64_t kept,
                      int64_t place, int64_t most) {
  T lanes[COLUMNS][LANES], number[LANES], goes_on[LANES], code[LANES];
  int64_t row[LANES];
  int64_t next = 0, last = 0, busy = 0, evaluations = 0;

  const auto take_next = [&](int lane) {
    if (next == last) {
      next = std::min(rows, __atomic_fetch_add(tally, TAKEN, __ATOMIC_RELAXED));
      last = std::min(rows, next + TAKEN);
    }
    const int64_t at = row[lane] = next < last ? next++ : -1;
    if (at < 0) return;
    busy++;
    number[lane] = 0;
    for (int column = 0; column < COLUMNS; column++) lanes[column][lane] = BEFORE[column];
    const int64_t target = at / each;
    for (int i = 0; i < OUTCOMES; i++) lanes[i][lane] = targets[target * OUTCOMES + i];
    for (int i = 0; i < CONDITIONS; i++) lanes[OUTCOMES + i][lane] = conditions[target * CONDITIONS + i];
    for (int i = 0; i < CONTROLS; i++)
      lanes[FIRST_PLACE + i][lane] = lanes[BEST + i][lane] = starts[at * CONTROLS + i];
  };
  // A lane without a row does what another one does, so it never keeps the others waiting.
  const auto idle_along = [&] {
    int leader = 0;
    while (row[leader] < 0) leader++;
    for (int lane = 0; lane < LANES; lane++) {
      if (row[lane] >= 0) continue;
      number[lane] = number[leader];
      for (int column = 0; column < COLUMNS; column++) lanes[column][lane] = lanes[column][leader];
    }
  };

  for (int lane = 0; lane < LANES; lane++) take_next(lane);
  if (busy && busy < LANES) idle_along();
  while (busy) {
    V in[1 + COLUMNS], out[COLUMNS + 2];
    in[0] = V::loadu(number);
    for (int column = 0; column < COLUMNS; column++) in[1 + column] = V::loadu(lanes[column]);
    apply(in, out);
    for (int column = 0; column < COLUMNS; column++) out[column].store(lanes[column]);
    out[COLUMNS].store(goes_on);
    out[COLUMNS + 1].store(code);
    const int64_t before = busy;
    for (int lane = 0; lane < LANES; lane++) {
      const int64_t at = row[lane], step = int64_t(number[lane]);
      number[lane] += 1;
      if (at < 0) continue;
      if (at < kept)
        for (int i = 0; i < place; i++) path[(step * kept + at) * place + i] = lanes[FIRST_PLACE + i][lane];
      if (goes_on[lane] != 0 && step < most) continue;
      for (int i = 0; i < CONTROLS; i++) best[at * CONTROLS + i] = lanes[BEST + i][lane];
      miss[at] = lanes[MISS][lane];
      reached[at] = int32_t(lanes[REACHED][lane]);
      steps[at] = int32_t(step);
      status[at] = int8_t(code[lane]);
      evaluations += step + 1;
      busy--;
      take_next(lane);
    }
    if (busy && busy < before) idle_along();
  }
  __atomic_fetch_add(tally + 1, evaluations, __ATOMIC_RELAXED);
}
