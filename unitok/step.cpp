// One decoding step of one sequence in one parallel region: what `unitok.stepping` computes in torch's operations.
//
// C width, H query heads, G key/value heads, D head size, I feed-forward size, S cache positions. Matrices are
// row-major (outputs, inputs), float32, bfloat16 or int8 with a scale per row, read where they lie; sums are float32.
// Reading every weight once bounds a step, so matrices are split by rows over the threads, each thread reads one row
// after the other, and what is small is computed by every thread for itself instead of waiting for it.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

struct Matrix {
    const void* weight;
    const float* scales;  // (rows), int8 only
    const float* bias;    // (rows) or null
    int64_t rows, columns;
};

struct Layer {
    const float *norm, *q_norm, *k_norm, *feed_norm;  // q_norm and k_norm may be null
    Matrix qkv, out, gate_up, down;
};

struct Decoder {
    const Layer* layers;
    const void* embedding;              // (V, C)
    const float *norm, *frequencies;    // (C), (D / 2)
    int64_t count, heads, kv_heads, size;
    float eps;
};

struct Cache {
    void* kv;  // (L, 2G, S, D) at these distances, keys before values
    int64_t layer_stride, head_stride;
};

namespace {

constexpr int64_t AHEAD = 4096;  // bytes that are asked for ahead of use: prefetchers stop at the end of a page
constexpr int64_t BLOCK = 16;
constexpr int64_t LONGEST_HEAD = 1024;

struct bfloat16 {
    uint16_t bits;
};

inline float wide(float x) { return x; }
inline float wide(int8_t x) { return x; }
inline float wide(bfloat16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
}

inline void narrow(float x, float& out) { out = x; }
inline void narrow(float x, bfloat16& out) {  // to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    out.bits = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// e^x to 2e-7, without the branches that keep a compiler from computing many at once (Cephes' polynomial).
inline float exponential(float x) {
    x = std::min(std::max(x, -87.0f), 88.0f);
    float power = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // to the nearest whole number
    float rest = (x - power * 0.693359375f) + power * 2.12194440e-4f;
    float sum = 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    uint32_t bits = uint32_t(int32_t(power) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return (sum * rest * rest + rest + 1) * scale;
}

template <class W>
inline float dot(const W* row, const float* x, int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += wide(row[i]) * x[i];
    return sum;
}

#ifdef __AVX512F__
// Compilers widen int8 in detours, at half the rate of memory.
inline float dot(const int8_t* row, const float* x, int64_t count) {
    __m512 sums[4] = {};
    int64_t i = 0;
    for (; i + 64 <= count; i += 64)
        for (int part = 0; part < 4; part++) {
            __m512i bytes = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(row + i + 16 * part)));
            sums[part] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(bytes), _mm512_loadu_ps(x + i + 16 * part), sums[part]);
        }
    float sum = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
    for (; i < count; i++) sum += row[i] * x[i];
    return sum;
}
#endif

template <class W>
inline float output(const Matrix& matrix, int64_t row, const float* x) {
    const W* weights = (const W*)matrix.weight + row * matrix.columns;
    for (int64_t byte = 0; byte < matrix.columns * int64_t(sizeof(W)); byte += 64)
        __builtin_prefetch((const char*)weights + AHEAD + byte);
    float sum = dot(weights, x, matrix.columns);
    if (matrix.scales) sum *= matrix.scales[row];
    return matrix.bias ? sum + matrix.bias[row] : sum;
}

// Root-mean-square norm; `out` may be `x`.
void normalise(const float* x, const float* weight, float eps, int64_t count, float* out) {
    float factor = 1 / std::sqrt(dot(x, x, count) / count + eps);
    for (int64_t i = 0; i < count; i++) out[i] = x[i] * factor * weight[i];
}

// Rotary positions of one head, halves paired.
void rotate(float* x, const float* cosines, const float* sines, int64_t half) {
    for (int64_t i = 0; i < half; i++) {
        float first = x[i], second = x[half + i];
        x[i] = first * cosines[i] - second * sines[i];
        x[half + i] = second * cosines[i] + first * sines[i];
    }
}

// out (D) = softmax(q · keys) · values over `length` positions; `scores` has room for them. SIZE is D where it is known
// to the compiler, which then keeps q and out in registers, and 0 elsewhere.
template <int64_t SIZE, class K>
void attend(const float* q, const K* keys, const K* values, int64_t length, int64_t any_size, float* scores,
            float* out) {
    const int64_t size = SIZE ? SIZE : any_size;
    float scale = 1 / std::sqrt(float(size)), most = -INFINITY, sum = 0;
    for (int64_t s = 0; s < length; s++) most = std::max(most, scores[s] = dot(keys + s * size, q, size) * scale);
#pragma omp simd reduction(+ : sum)
    for (int64_t s = 0; s < length; s++) sum += scores[s] = exponential(scores[s] - most);
    float sums[SIZE ? SIZE : LONGEST_HEAD] = {};
    for (int64_t s = 0; s < length; s++) {
        float weight = scores[s] / sum;
#pragma omp simd
        for (int64_t d = 0; d < size; d++) sums[d] += weight * wide(values[s * size + d]);
    }
    std::copy_n(sums, size, out);
}

// The query heads of one key/value head, whose new key and value enter the cache. joint (H + 2G, D), mixed (H, D).
template <class K>
void group(const Decoder& decoder, const Layer& layer, const Cache& cache, int64_t index, int64_t position, int64_t g,
           const float* cosines, const float* sines, float* scores, float* joint, float* mixed) {
    int64_t size = decoder.size, heads = decoder.heads, repeat = heads / decoder.kv_heads;
    K* keys = (K*)cache.kv + index * cache.layer_stride + g * cache.head_stride;
    K* values = keys + decoder.kv_heads * cache.head_stride;
    float *key = joint + (heads + g) * size, *value = key + decoder.kv_heads * size;
    if (layer.k_norm) normalise(key, layer.k_norm, decoder.eps, size, key);
    rotate(key, cosines, sines, size / 2);
    for (int64_t d = 0; d < size; d++) {
        narrow(key[d], keys[position * size + d]);
        narrow(value[d], values[position * size + d]);
    }
    for (int64_t head = g * repeat; head < (g + 1) * repeat; head++) {
        float* q = joint + head * size;
        if (layer.q_norm) normalise(q, layer.q_norm, decoder.eps, size, q);
        rotate(q, cosines, sines, size / 2);
        auto run = size == 64 ? attend<64, K> : size == 128 ? attend<128, K> : attend<0, K>;
        run(q, keys, values, position + 1, size, scores, mixed + head * size);
    }
}

// W is the type of the matrices, K that of the embedding and the cache. hidden (C).
template <class W, class K>
void step(const Decoder& decoder, const Cache& cache, int64_t id, int64_t position, int threads, float* hidden) {
    const Layer* layers = decoder.layers;
    int64_t width = layers->qkv.columns, ffn = layers->down.columns, half = decoder.size / 2;
    std::vector<float> x(width), joint(layers->qkv.rows), mixed(layers->out.columns), inner(ffn), turns(2 * half);
    for (int64_t c = 0; c < width; c++) x[c] = wide(((const K*)decoder.embedding)[id * width + c]);
    for (int64_t i = 0; i < half; i++) {
        float angle = float(position) * decoder.frequencies[i];
        turns[i] = std::cos(angle), turns[half + i] = std::sin(angle);
    }
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> own(width), scores(position + 1);
        for (int64_t index = 0; index < decoder.count; index++) {
            const Layer& layer = layers[index];
            normalise(x.data(), layer.norm, decoder.eps, width, own.data());
#pragma omp for  // every such loop ends with a barrier
            for (int64_t row = 0; row < layer.qkv.rows; row++) joint[row] = output<W>(layer.qkv, row, own.data());
#pragma omp for
            for (int64_t g = 0; g < decoder.kv_heads; g++)
                group<K>(decoder, layer, cache, index, position, g, turns.data(), turns.data() + half, scores.data(),
                         joint.data(), mixed.data());
#pragma omp for
            for (int64_t row = 0; row < width; row++) x[row] += output<W>(layer.out, row, mixed.data());
            normalise(x.data(), layer.feed_norm, decoder.eps, width, own.data());
#pragma omp for
            for (int64_t start = 0; start < ffn; start += BLOCK) {
                int64_t end = std::min(start + BLOCK, ffn);
                float ups[BLOCK];
                for (int64_t row = start; row < end; row++) inner[row] = output<W>(layer.gate_up, row, own.data());
                for (int64_t row = start; row < end; row++)
                    ups[row - start] = output<W>(layer.gate_up, ffn + row, own.data());
#pragma omp simd
                for (int64_t row = start; row < end; row++)
                    inner[row] = inner[row] / (1 + exponential(-inner[row])) * ups[row - start];
            }
#pragma omp for
            for (int64_t row = 0; row < width; row++) x[row] += output<W>(layer.down, row, inner.data());
        }
    }
    normalise(x.data(), decoder.norm, decoder.eps, width, hidden);
}

template <class W>
void linear(const Matrix& matrix, const float* x, int threads, float* out) {
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < matrix.rows; row++) out[row] = output<W>(matrix, row, x);
}

}  // namespace

extern "C" {
void step_float32(const Decoder* decoder, const Cache* cache, int64_t id, int64_t position, int threads, float* out) {
    step<float, float>(*decoder, *cache, id, position, threads, out);
}
void step_bfloat16(const Decoder* decoder, const Cache* cache, int64_t id, int64_t position, int threads, float* out) {
    step<bfloat16, bfloat16>(*decoder, *cache, id, position, threads, out);
}
void step_int8_float32(const Decoder* decoder, const Cache* cache, int64_t id, int64_t position, int threads,
                       float* out) {
    step<int8_t, float>(*decoder, *cache, id, position, threads, out);
}
void step_int8_bfloat16(const Decoder* decoder, const Cache* cache, int64_t id, int64_t position, int threads,
                        float* out) {
    step<int8_t, bfloat16>(*decoder, *cache, id, position, threads, out);
}
void linear_float32(const Matrix* matrix, const float* x, int threads, float* out) {
    linear<float>(*matrix, x, threads, out);
}
void linear_bfloat16(const Matrix* matrix, const float* x, int threads, float* out) {
    linear<bfloat16>(*matrix, x, threads, out);
}
void linear_int8(const Matrix* matrix, const float* x, int threads, float* out) {
    linear<int8_t>(*matrix, x, threads, out);
}
}
