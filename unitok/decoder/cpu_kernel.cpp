// One decoding step of one sequence in one parallel region: what `fast_step.py` computes in torch's operations. Of a
// batch's step only the attention is here, which reads of every sequence what is filled and not the longest's positions.
//
// B sequences, C width, H query heads, G key/value heads, D head size, I feed-forward size, S cache positions. Matrices are
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

struct Heads {
    const float *q_norm, *k_norm;  // (D) or null
    int64_t heads, kv_heads, size;
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

// The query heads of one key/value head, whose new key and value enter the cache at keys and values (S, D). q (R, D) and
// key (D) are normalised and rotated in place by turns (D), cosines before sines; mixed (R, D).
template <class K>
void group(const Heads& heads, K* keys, K* values, int64_t position, const float* turns, float* scores, float* q,
           float* key, const float* value, float* mixed) {
    const int64_t size = heads.size, half = size / 2;
    if (heads.k_norm) normalise(key, heads.k_norm, heads.eps, size, key);
    rotate(key, turns, turns + half, half);
    for (int64_t d = 0; d < size; d++) {
        narrow(key[d], keys[position * size + d]);
        narrow(value[d], values[position * size + d]);
    }
    auto run = size == 64 ? attend<64, K> : size == 128 ? attend<128, K> : attend<0, K>;
    for (int64_t head = 0; head < heads.heads / heads.kv_heads; head++, q += size, mixed += size) {
        if (heads.q_norm) normalise(q, heads.q_norm, heads.eps, size, q);
        rotate(q, turns, turns + half, half);
        run(q, keys, values, position + 1, size, scores, mixed);
    }
}

// Attention of one new position of each of B sequences, at `lengths` (B). joint (B, H + 2G, D), cache (B, 2G, S, D) at
// these distances, turns (S, D) as in `group`, mixed (B, H, D).
template <class K>
void attention(const Heads& heads, K* cache, int64_t row_stride, int64_t head_stride, int64_t count,
               const int64_t* lengths, const float* turns, const K* joint, int threads, K* mixed) {
    const int64_t size = heads.size, kv_heads = heads.kv_heads, repeat = heads.heads / kv_heads;
    const int64_t longest = *std::max_element(lengths, lengths + count) + 1;
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> scores(longest), own((2 * repeat + 2) * size);
        float *q = own.data(), *out = q + repeat * size, *key = out + repeat * size, *value = key + size;
#pragma omp for schedule(dynamic)
        for (int64_t one = 0; one < count * kv_heads; one++) {
            int64_t row = one / kv_heads, g = one % kv_heads;
            const K* from = joint + row * (heads.heads + 2 * kv_heads) * size;
            for (int64_t d = 0; d < repeat * size; d++) q[d] = wide(from[g * repeat * size + d]);
            for (int64_t d = 0; d < size; d++) {
                key[d] = wide(from[(heads.heads + g) * size + d]);
                value[d] = wide(from[(heads.heads + kv_heads + g) * size + d]);
            }
            K* keys = cache + row * row_stride + g * head_stride;
            group(heads, keys, keys + kv_heads * head_stride, lengths[row], turns + lengths[row] * size, scores.data(),
                  q, key, value, out);
            K* to = mixed + (row * heads.heads + g * repeat) * size;
            for (int64_t d = 0; d < repeat * size; d++) narrow(out[d], to[d]);
        }
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
            Heads heads{layer.q_norm, layer.k_norm, decoder.heads, decoder.kv_heads, decoder.size, decoder.eps};
#pragma omp for
            for (int64_t g = 0; g < decoder.kv_heads; g++) {
                K* keys = (K*)cache.kv + index * cache.layer_stride + g * cache.head_stride;
                int64_t first = g * decoder.heads / decoder.kv_heads * decoder.size;
                float* key = joint.data() + (decoder.heads + g) * decoder.size;
                group(heads, keys, keys + decoder.kv_heads * cache.head_stride, position, turns.data(), scores.data(),
                      joint.data() + first, key, key + decoder.kv_heads * decoder.size, mixed.data() + first);
            }
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
void attention_float32(const Heads* heads, void* cache, int64_t row_stride, int64_t head_stride, int64_t count,
                       const int64_t* lengths, const float* turns, const void* joint, int threads, void* mixed) {
    attention(*heads, (float*)cache, row_stride, head_stride, count, lengths, turns, (const float*)joint, threads,
              (float*)mixed);
}
void attention_bfloat16(const Heads* heads, void* cache, int64_t row_stride, int64_t head_stride, int64_t count,
                        const int64_t* lengths, const float* turns, const void* joint, int threads, void* mixed) {
    attention(*heads, (bfloat16*)cache, row_stride, head_stride, count, lengths, turns, (const bfloat16*)joint, threads,
              (bfloat16*)mixed);
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
