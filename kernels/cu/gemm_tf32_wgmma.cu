// Matrix products and convolutions with operands rounded to tf32, by wgmma: see gemm.cuh, gemm_wgmma.cuh.
#define GEMM_TF32
#define GEMM_WGMMA
#include "gemm.cuh"

GEMMS(tf32_wgmma)
