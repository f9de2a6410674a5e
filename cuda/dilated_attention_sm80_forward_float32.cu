#include "cuda/dilated_attention_sm80_forward.cuh"

namespace dilated_sm80 {

instance forward_float32(int64_t width, bool dropout) {
    return forward_instance<float>(width, dropout);
}

} // namespace dilated_sm80
