// Moves sums of the accumulation type to float64.
#pragma once

#include "processor.h"

namespace EBGAN_ISA {

inline void add_to(double* to, DoubleVector v) { store(to, load(to) + v); }
inline void add_to(float* to, FloatVector v) { store(to, load(to) + v); }
inline void put_to(double* to, DoubleVector v) { store(to, v); }
inline void put_to(float* to, FloatVector v) { store(to, v); }

typedef float HalfFloats __attribute__((vector_size(EBGAN_VECTOR_BYTES / 2)));

inline DoubleVector low_doubles(FloatVector v) { return __builtin_convertvector(read_as<HalfFloats>(&v), DoubleVector); }
inline DoubleVector high_doubles(FloatVector v) {
  return __builtin_convertvector(read_as<HalfFloats>(reinterpret_cast<const char*>(&v) + EBGAN_VECTOR_BYTES / 2),
                                 DoubleVector);
}

inline void put_to(double* to, FloatVector v) {
  store(to, low_doubles(v));
  store(to + kLanes<double>, high_doubles(v));
}
inline void add_to(double* to, FloatVector v) {
  add_to(to, low_doubles(v));
  add_to(to + kLanes<double>, high_doubles(v));
}

}  // namespace EBGAN_ISA
