// Matrix products and convolutions with operands rounded to bf16: see gemm.cuh, gemm_tensor.cuh.
#define GEMM_BF16
#include "gemm.cuh"

GEMMS(bf16)
