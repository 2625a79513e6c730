// A whole solve of many rows, each in a lane of its own: a lane whose row has stopped takes the next one.
//
// STEP holds `apply`, one step of a row, and how many columns it takes and returns.

#include "lanes.h"

// Args:
//   columns: COLUMNS of `rows` numbers each, what a step takes and returns; before the first step, and after the last.
//   first, last: the rows to solve.
//   steps, status: `rows` each, filled in.
//   path: `most + 1` times `kept` times PLACE columns from FIRST_PLACE on, of the rows before `kept`, at every step.
extern "C" void solve(T* columns, int64_t rows, int64_t first, int64_t last, int64_t most, T* steps, T* status, T* path,
                      int64_t kept) {
  T lanes[COLUMNS][LANES], number[LANES], goes_on[LANES], code[LANES];
  int64_t row[LANES];
  int64_t busy = 0;

  const auto take_next = [&](int lane) {
    row[lane] = first < last ? first++ : -1;
    if (row[lane] < 0) return;
    busy++;
    number[lane] = 0;
    for (int column = 0; column < COLUMNS; column++) lanes[column][lane] = columns[column * rows + row[lane]];
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
        for (int column = 0; column < PLACE; column++)
          path[(step * kept + at) * PLACE + column] = lanes[FIRST_PLACE + column][lane];
      if (goes_on[lane] != 0 && step < most) continue;
      for (int column = 0; column < COLUMNS; column++) columns[column * rows + at] = lanes[column][lane];
      steps[at] = T(step);
      status[at] = code[lane];
      busy--;
      take_next(lane);
    }
    if (busy && busy < before) idle_along();
  }
}
