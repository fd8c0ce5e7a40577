// The sum of n numbers. -DRACE replaces the atomic addition by a plain one. -DTOO_FAR reads one number too many.
#ifdef TOO_FAR
#define AFTER_THE_LAST n + 1
#else
#define AFTER_THE_LAST n
#endif

__global__ void total(const int* x, int* out, int n) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= AFTER_THE_LAST) return;
#ifdef RACE
  *out += x[at];
#else
  atomicAdd(out, x[at]);
#endif
}
