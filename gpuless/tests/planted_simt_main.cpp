// planted row_sum | product | shuffles | no_rows BUG [SHIFT]: runs a kernel of planted_simt.cu on arrays from malloc.
// The input begins SHIFT numbers later. The exit status is 1 if the result is wrong.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" {
void run_row_sum(const float* in, float* out, int rows, int quads, const char* bug);
void run_product(const void* a, const void* b, void* out, int m, int n, int k, int to_half, const char* bug);
void run_shuffles(const int* in, int* out, const char* bug);
}

static int row_sums(const char* bug, int shift) {
  constexpr int kRows = 5, kQuads = 300;
  std::vector<float> in(kRows * kQuads * 4 + shift), out(kRows);
  for (size_t i = 0; i < in.size(); ++i) in[i] = i % 7;
  run_row_sum(in.data() + shift, out.data(), kRows, kQuads, bug);
  for (int row = 0; row < kRows; ++row) {
    double sum = 0;
    for (int i = 0; i < kQuads * 4; ++i) sum += in[shift + row * kQuads * 4 + i];
    if (out[row] != sum) return 1;
  }
  return 0;
}

// Multiplies matrices of ones: every number of the product is the length of a row.
static int products(const char* bug) {
  constexpr int kSide = 17;
  constexpr unsigned short kOne = 0x3c00, kSeventeen = 0x4188;  // 1 as float16, 17 as bfloat16
  const std::vector<unsigned short> ones(kSide * kSide, kOne);
  std::vector<unsigned short> out(kSide * kSide);
  run_product(ones.data(), ones.data(), out.data(), kSide, kSide, kSide, 0, bug);
  for (unsigned short bits : out)
    if (bits != kSeventeen) return 1;
  return 0;
}

static int shuffles(const char* bug) {
  std::vector<int> in(32), out(4 * 32);
  run_shuffles(in.data(), out.data(), bug);
  return 0;
}

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const char *kernel = argv[1], *bug = argv[2];
  if (!strcmp(kernel, "row_sum")) return row_sums(bug, argc > 3 ? atoi(argv[3]) : 0);
  if (!strcmp(kernel, "product")) return products(bug);
  if (!strcmp(kernel, "shuffles")) return shuffles(bug);
  if (!strcmp(kernel, "no_rows")) run_row_sum(nullptr, nullptr, 0, 1, bug);
  return 2;
}
