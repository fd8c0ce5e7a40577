// Products of a warp's tensor cores, with the functions that csrc/cuda/mma.cuh calls. Every product is exact, and each
// sum is rounded once.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace simt {

struct Fragments {
  uint32_t a[kLanes][4];
  uint32_t b[kLanes][2];
};

// Returns the operands of all lanes, in every lane.
inline Fragments gathered(const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  uint32_t all[kLanes][6];
  for (int half = 0; half < 3; ++half) {
    uint64_t pair;
    memcpy(&pair, mine + 2 * half, sizeof pair);
    const uint64_t* received = exchange("mma", __FILE__, __LINE__, kEveryLane, pair);
    for (int lane = 0; lane < kLanes; ++lane) memcpy(&all[lane][2 * half], received + lane, sizeof pair);
  }
  Fragments fragments;
  for (int lane = 0; lane < kLanes; ++lane) {
    memcpy(fragments.a[lane], all[lane], sizeof fragments.a[lane]);
    memcpy(fragments.b[lane], all[lane] + 4, sizeof fragments.b[lane]);
  }
  return fragments;
}

// c += a b for the lane's four numbers of c [16, 8]. left(row, k) and right(k, column) read the gathered operands.
template <class Left, class Right> void add_product(float (&c)[4], int depth, const Left& left, const Right& right) {
  const int lane = block.running->lane();
  for (int i = 0; i < 4; ++i) {
    double sum = c[i];
    for (int k = 0; k < depth; ++k) sum += left(lane / 4 + i / 2 * 8, k) * right(k, lane % 4 * 2 + i % 2);
    c[i] = static_cast<float>(sum);
  }
}

template <class T> double half_of(uint32_t pair, int which) {
  const auto bits = static_cast<uint16_t>(pair >> (16 * which));
  T value;
  memcpy(static_cast<void*>(&value), &bits, sizeof bits);
  return static_cast<float>(value);
}

inline double number_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace simt

namespace gpu {

template <class T> void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const simt::Fragments it = simt::gathered(a, b);
  simt::add_product(
      c, 16,
      [&](int row, int k) { return simt::half_of<T>(it.a[row % 8 * 4 + k % 8 / 2][k / 8 * 2 + row / 8], k % 2); },
      [&](int k, int column) { return simt::half_of<T>(it.b[column * 4 + k % 8 / 2][k / 8], k % 2); });
}

inline void mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const simt::Fragments it = simt::gathered(a, b);
  simt::add_product(
      c, 8, [&](int row, int k) { return simt::number_of(it.a[row % 8 * 4 + k % 4][k / 4 * 2 + row / 8]); },
      [&](int k, int column) { return simt::number_of(it.b[column * 4 + k % 4][k / 4]); });
}

// Rounds to 10 bits behind the point, ties away from zero.
inline uint32_t to_tf32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return std::isfinite(x) ? (bits + 0x1000u) & ~0x1fffu : bits;
}

}  // namespace gpu
