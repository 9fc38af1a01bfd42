// Matrix products and convolutions with operands rounded to tf32: see gemm.cuh, gemm_tensor.cuh.
#define GEMM_TF32
#include "gemm.cuh"

GEMMS(tf32)
