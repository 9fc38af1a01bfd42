// The elementary functions, for the code that the host writes for fused element-wise programs: a function of its
// own each, which such code calls by name. In place of kernels, its PTX has these.
#include "special.cuh"

#ifdef CUDA_ON_CPU
#define FUNCTION extern "C" float
#else
#define FUNCTION extern "C" __device__ __noinline__ float
#endif

FUNCTION map_exp(float x) { return exp_f32(x); }
FUNCTION map_log(float x) { return log_f32(x); }
FUNCTION map_tanh(float x) { return tanh_f32(x); }
FUNCTION map_sigmoid(float x) { return sigmoid_f32(x); }
FUNCTION map_tanh_slope(float x) { return tanh_slope_f32(x); }
FUNCTION map_sigmoid_slope(float x) { return sigmoid_slope_f32(x); }
FUNCTION map_softplus(float x) { return softplus_f32(x); }
FUNCTION map_log1p(float x) { return log1p_f32(x); }
FUNCTION map_expm1(float x) { return expm1_f32(x); }
FUNCTION map_sin(float x) { return sin_f32(x); }
FUNCTION map_cos(float x) { return cos_f32(x); }
FUNCTION map_erf(float x) { return erf_f32(x); }
FUNCTION map_erfc(float x) { return erfc_f32(x); }
FUNCTION map_pow(float x, float y) { return pow_f32(x, y); }
