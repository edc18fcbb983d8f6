/* The instructions of AVX-512 VNNI that C files use, as loops: for processors
   without them. Included instead of the header of the compiler. */
#include <stdint.h>
#include <string.h>

typedef struct { int32_t lane[16]; } __m512i;

static inline __m512i _mm512_setzero_si512(void) {
  const __m512i zero = {{0}};
  return zero;
}

static inline __m512i _mm512_loadu_si512(const void *at) {
  __m512i x;
  memcpy(&x, at, sizeof x);
  return x;
}

static inline void _mm512_storeu_si512(void *at, __m512i x) {
  memcpy(at, &x, sizeof x);
}

static inline __m512i _mm512_set1_epi32(int32_t number) {
  __m512i x;
  for (int i = 0; i < 16; ++i) x.lane[i] = number;
  return x;
}

static inline __m512i _mm512_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
  for (int i = 0; i < 16; ++i) {
    uint8_t codes[4];
    int8_t weights[4];
    memcpy(codes, &a.lane[i], 4);
    memcpy(weights, &b.lane[i], 4);
    for (int k = 0; k < 4; ++k) sum.lane[i] += codes[k] * weights[k];
  }
  return sum;
}

typedef struct { uint8_t lane[16]; } __m128i;
typedef struct { uint8_t lane[32]; } __m256i;

static inline __m128i _mm_loadu_si128(const __m128i *at) { return *at; }

static inline __m256i _mm256_loadu_si256(const __m256i *at) { return *at; }

static inline __m512i _mm512_cvtepu8_epi32(__m128i x) {
  __m512i y;
  for (int i = 0; i < 16; ++i) y.lane[i] = x.lane[i];
  return y;
}

static inline __m512i _mm512_cvtepu8_epi16(__m256i x) {
  uint16_t wide[32];
  __m512i y;
  for (int i = 0; i < 32; ++i) wide[i] = x.lane[i];
  memcpy(&y, wide, sizeof y);
  return y;
}

static inline __m512i _mm512_slli_epi32(__m512i x, unsigned count) {
  for (int i = 0; i < 16; ++i)
    x.lane[i] = (int32_t)((uint32_t)x.lane[i] << count);
  return x;
}

static inline __m512i _mm512_slli_epi16(__m512i x, unsigned count) {
  uint16_t wide[32];
  memcpy(wide, &x, sizeof x);
  for (int i = 0; i < 32; ++i) wide[i] = (uint16_t)(wide[i] << count);
  memcpy(&x, wide, sizeof x);
  return x;
}

static inline __m512i _mm512_or_si512(__m512i a, __m512i b) {
  for (int i = 0; i < 16; ++i) a.lane[i] |= b.lane[i];
  return a;
}

static inline __m512i _mm512_and_si512(__m512i a, __m512i b) {
  for (int i = 0; i < 16; ++i) a.lane[i] &= b.lane[i];
  return a;
}

static inline __m512i _mm512_set1_epi8(int8_t number) {
  __m512i x;
  memset(&x, (uint8_t)number, sizeof x);
  return x;
}

static inline __m512i _mm512_sub_epi8(__m512i a, __m512i b) {
  uint8_t left[64], right[64];
  memcpy(left, &a, sizeof a);
  memcpy(right, &b, sizeof b);
  for (int i = 0; i < 64; ++i) left[i] = (uint8_t)(left[i] - right[i]);
  memcpy(&a, left, sizeof a);
  return a;
}
