#include "cuda/dilated_attention_sm80_backward.cuh"

namespace dilated_sm80 {

instance backward_bfloat16_to_float32(int64_t width, pass which) {
    return backward_instance<__nv_bfloat16, float>(width, which);
}

} // namespace dilated_sm80
