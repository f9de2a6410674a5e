#include "cuda/dilated_attention_sm80_backward.cuh"

namespace dilated_sm80 {

instance backward_float16_to_float32(int64_t width, pass which) {
    return backward_instance<__half, float>(width, which);
}

} // namespace dilated_sm80
