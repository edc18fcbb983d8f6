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
