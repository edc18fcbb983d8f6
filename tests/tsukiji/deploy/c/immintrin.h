/* The instructions of AVX-512 VNNI and AMX that C files use, as loops: for
   processors without them. Included instead of the header of the compiler. */
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

static inline __m512i _mm512_add_epi32(__m512i a, __m512i b) {
  for (int i = 0; i < 16; ++i)
    a.lane[i] = (int32_t)((uint32_t)a.lane[i] + (uint32_t)b.lane[i]);
  return a;
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

/* Tiles, of AMX. */
#ifndef ask_for_tiles
#define ask_for_tiles() 0L
#endif

static struct tile {
  int rows, bytes;
  uint8_t at[16][64];
} tile_[8];

static inline void _tile_loadconfig(const void *shape) {
  const uint8_t *const bytes = shape;
  for (int i = 0; i < 8; ++i) {
    memset(&tile_[i], 0, sizeof tile_[i]);
    tile_[i].rows = bytes[48 + i];
    tile_[i].bytes = bytes[16 + 2 * i] + 256 * bytes[17 + 2 * i];
  }
}

static inline void _tile_release(void) { memset(tile_, 0, sizeof tile_); }

static inline void _tile_zero(int i) {
  memset(tile_[i].at, 0, sizeof tile_[i].at);
}

static inline void _tile_loadd(int i, const void *from, int stride) {
  for (int row = 0; row < tile_[i].rows; ++row)
    memcpy(tile_[i].at[row], (const char *)from + row * stride,
           (size_t)tile_[i].bytes);
}

static inline void _tile_stored(int i, void *to, int stride) {
  for (int row = 0; row < tile_[i].rows; ++row)
    memcpy((char *)to + row * stride, tile_[i].at[row],
           (size_t)tile_[i].bytes);
}

static inline void _tile_dpbusd(int sum, int codes, int weights) {
  for (int row = 0; row < tile_[sum].rows; ++row)
    for (int column = 0; column < tile_[sum].bytes / 4; ++column) {
      int32_t all;
      memcpy(&all, &tile_[sum].at[row][4 * column], 4);
      for (int k = 0; k < tile_[codes].bytes; ++k)
        all += tile_[codes].at[row][k] *
               (int8_t)tile_[weights].at[k / 4][4 * column + k % 4];
      memcpy(&tile_[sum].at[row][4 * column], &all, 4);
    }
}
