#include "cuda/dilated_attention_sm80_forward.cuh"

namespace dilated_sm80 {

instance forward_bfloat16(int64_t width, bool dropout) {
    return forward_instance<__nv_bfloat16>(width, dropout);
}

} // namespace dilated_sm80
