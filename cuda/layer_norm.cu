/* Layer norm and its gradients. */
#include "cuda/norm_backward.cuh"

extern "C" {
#include "ops/layer_norm.h"
}

extern "C" lnet_status lnet_cuda_layer_norm(const struct lnet_layer_norm_args *a,
                                            lnet_stream *stream) {
    return lnet_by_dtype(a->x->dtype, [&](auto zero) {
        using element = decltype(zero);
        const norm_job<element> job = {
            data_of<element>(a->y),
            data_of<element>(a->sum),
            data_of<float>(a->mean),
            data_of<float>(a->rstd),
            data_of<element>(a->x),
            data_of<element>(a->residual),
            data_of<element>(a->weight),
            data_of<element>(a->bias),
            rows_of(a->x),
            width_of(a->x),
            static_cast<float>(a->eps),
        };
        const bool packed = in_packets(job.width, packet_size<element>, a->y, a->sum, a->x,
                                       a->residual, a->weight, a->bias);
        return a->gelu ? launch_norm<true, true>(job, packed, stream)
                       : launch_norm<true, false>(job, packed, stream);
    });
}

extern "C" lnet_status lnet_cuda_layer_norm_backward(const struct lnet_layer_norm_backward_args *a,
                                                     lnet_stream *stream) {
    return lnet_by_dtype(a->x->dtype, [&](auto zero) {
        using element = decltype(zero);
        const norm_gradient_job<element> job = {
            data_of<element>(a->dx),
            data_of<element>(a->dy),
            data_of<element>(a->x),
            data_of<element>(a->weight),
            data_of<element>(a->dsum),
            data_of<float>(a->mean),
            data_of<float>(a->rstd),
            NULL,
            rows_of(a->x),
            width_of(a->x),
            false,
        };
        element *const dweight = data_of<element>(a->dweight), *const dbias =
                                                                   data_of<element>(a->dbias);
        const bool packed =
            in_packets(job.width, packet_size<element>, a->dx, a->dy, a->x, a->weight, a->dsum);
        return a->gelu ? launch_norm_backward<true, true>(job, dweight, dbias, packed, stream)
                       : launch_norm_backward<true, false>(job, dweight, dbias, packed, stream);
    });
}
