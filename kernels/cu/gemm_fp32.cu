// Matrix products and convolutions in exact f32 (no tensor cores): see gemm.cuh, gemm_fp32.cuh.
#include "gemm.cuh"

GEMMS(fp32)
