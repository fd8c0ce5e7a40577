#pragma once

#include "convert.h"
#include "kernels.h"

namespace EBGAN_ISA {

// Calls run with a value of the storage type, which says the type by decltype.
template <class Run> inline void dispatch(ebgan::DType dtype, const Run& run) {
  switch (dtype) {
    case ebgan::DType::kFloat64: run(double{}); break;
    case ebgan::DType::kFloat32: run(float{}); break;
    case ebgan::DType::kBFloat16: run(BFloat16{}); break;
    case ebgan::DType::kFloat16: run(Half{}); break;
  }
}

}  // namespace EBGAN_ISA
