// Matrix products and convolutions with operands rounded to bf16, by wgmma: see gemm.cuh, gemm_wgmma.cuh.
#define GEMM_BF16
#define GEMM_WGMMA
#include "gemm.cuh"

GEMMS(bf16_wgmma)
