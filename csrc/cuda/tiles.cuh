// Tiles of a matrix that are copied from global to shared memory, and a block's product of them.
#pragma once

#include "mma.cuh"

namespace ebgan::cuda {

// A matrix in memory. Its lines are `step` apart, and the numbers of a line are adjacent.
template <class T> struct Lines {
  const T* p_first;
  int64_t step;
  int64_t lines;
  int64_t columns;
  const Acc<T>* p_lengths;  // [lines], if the lines are divided by their lengths (a line of zeros stays zero)
  const Acc<T>* p_scales;   // [lines], the lines are first multiplied by these: ../row_scale.h
  bool is_wide;             // packets of 16 bytes are aligned and within a line
};

template <class A> __device__ A inverse_of(A norm) { return norm == 0 ? A{0} : A{1} / norm; }

// Returns the factor of a line's numbers, or -1 if they must be multiplied by the scale first.
template <class T> __device__ Acc<T> factor_of(const Lines<T>& from, int64_t line) {
  const Acc<T> scale = from.p_scales[line], factor = inverse_of(from.p_lengths[line]);  // both loads overlap
  return scale == 1 ? factor : Acc<T>{-1};
}

// kLines x kColumns numbers of type S in shared memory. Lines are kStep apart, so that the accesses of a warp's
// fragments use each bank once: a line starts 4 banks further if fragments run along lines, 8 if they run across.
template <class S, int kLines_, int kColumns_, bool kAlong> struct Tile {
  static constexpr int kLines = kLines_, kColumns = kColumns_;
  static constexpr int kStep = kColumns + (kAlong ? 16 : 32) / static_cast<int>(sizeof(S) < 4 ? 2 : 4);
  static constexpr int kSize = kLines * kStep;
  S* p_numbers;

  // Returns the tile as a factor. Lines are the factor's rows, or its depth.
  __device__ Factor<S> factor() const { return kAlong ? Factor<S>{p_numbers, kStep, 1} : Factor<S>{p_numbers, 1, kStep}; }
};

// A thread's packets of a tile. They are fetched while the previous tile is still being multiplied, and stored when
// that is done.
template <class T, class Into, int kThreads, bool kScaled> struct Fetched {
  static constexpr int kWidth = kWide<T>;
  static constexpr int kPerLine = Into::kColumns / kWidth;
  static constexpr int kPackets = Into::kLines * kPerLine / kThreads;
  static_assert(kPackets * kThreads == Into::kLines * kPerLine, "every thread has as many packets");

  Packet<T, kWidth> packets[kPackets];
  Acc<T> factors[kScaled ? kPackets : 1];

  // Fetches from (line, column) of the matrix on. Numbers outside, and from column `end` on, are zeros.
  __device__ void fetch(const Lines<T>& from, int64_t line, int64_t column, int64_t end) {
    if (end > from.columns) end = from.columns;
#pragma unroll
    for (int i = 0; i < kPackets; ++i) {
      const int number = i * kThreads + threadIdx.x;
      const int64_t l = line + number / kPerLine, c = column + number % kPerLine * kWidth;
      packets[i] = {};
      if constexpr (kScaled) factors[i] = 0;
      if (l >= from.lines || c >= end) continue;
      const T* const p = from.p_first + l * from.step + c;
      if (from.is_wide) {
        packets[i] = load<T, kWidth>(p);
      } else {
#pragma unroll
        for (int j = 0; j < kWidth; ++j)
          if (c + j < end) packets[i].values[j] = p[j];
      }
      if constexpr (kScaled) factors[i] = factor_of(from, l);
    }
  }

  // Stores the packets that were fetched from line `line` on.
  template <class S> __device__ void put(S* p_numbers, const Lines<T>& from, int64_t line) const {
#pragma unroll
    for (int i = 0; i < kPackets; ++i) {
      const int number = i * kThreads + threadIdx.x;
      S* const p = p_numbers + number / kPerLine * Into::kStep + number % kPerLine * kWidth;
      if constexpr (!kScaled) {
        *reinterpret_cast<Packet<T, kWidth>*>(p) = packets[i];
      } else if (factors[i] < 0) {
        // Multiplied separately: for a length near the largest number, the product of both is subnormal.
        const int64_t l = line + number / kPerLine;
        const Acc<T> scale = from.p_scales[l], factor = inverse_of(from.p_lengths[l]);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) p[j] = widen(packets[i].values[j]) * scale * factor;
      } else {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) p[j] = widen(packets[i].values[j]) * factors[i];
      }
    }
  }
};

// How a block's warps share its result: 2 warps across, and as many down as needed.
template <class A, int kRows, int kColumns, int kWarpRows_ = 32> struct Shares {
  static constexpr int kWarpRows = kWarpRows_;
  static constexpr int kWarps = kRows / kWarpRows * 2;
  static constexpr int kThreads = kWarps * kWarp;
  using Part = Sums<A, kWarpRows / 16, kColumns / 2 / 8>;

  __device__ static int row() { return static_cast<int>(threadIdx.x) / kWarp / 2 * kWarpRows; }
  __device__ static int column() { return static_cast<int>(threadIdx.x) / kWarp % 2 * (kColumns / 2); }
};

}  // namespace ebgan::cuda
