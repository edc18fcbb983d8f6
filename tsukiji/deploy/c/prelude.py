"""Helpers of C files, of which each file has those that it calls."""

# Inside other loops the sums would have to share registers with their numbers.
ALONE = """\
#if defined(__GNUC__)
#define ALONE static __attribute__((noinline))
#else
#define ALONE static
#endif

#if defined(__GNUC__) && defined(__AVX__)
/* In a register: GCC would load weights, and store sums, again and again. */
#define KEEP(x) __asm__("" : "+x"(x))
#else
#define KEEP(x) (void)0
#endif"""
# Ties are rounded away from 0, as in `integer.fixed_point`.
PRELUDE = {
  'bits_set': """\
static inline int bits_set(uint32_t x) {
#if defined(__GNUC__) && defined(__POPCNT__)
  return __builtin_popcount(x);
#else
  x -= x >> 1 & 0x55555555u;
  x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
  return (int)(((x + (x >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24);
#endif
}""",
  'count_unlike': """\
#if defined(__AVX2__) && !defined(__AVX512VPOPCNTDQ__)
#include <immintrin.h>
#endif
/* Adds to each sum the bits in which a word differs from its own. */
static inline void count_unlike(int32_t *sums, uint32_t word,
                                const uint32_t *own, int count) {
  int m = 0;
#if defined(__AVX2__) && !defined(__AVX512VPOPCNTDQ__)
  /* Bits of 4, by a table in a register (Mula+ 2018, arXiv 1611.07612). */
  const __m256i table = _mm256_setr_epi8(
      0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
      0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i four = _mm256_set1_epi8(15), every = _mm256_set1_epi32(word);
  const __m256i bytes = _mm256_set1_epi8(1), shorts = _mm256_set1_epi16(1);
  for (; m + 8 <= count; m += 8) {
    const __m256i x =
        _mm256_xor_si256(every, _mm256_loadu_si256((const void *)(own + m)));
    const __m256i low = _mm256_and_si256(x, four);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(x, 4), four);
    const __m256i n = _mm256_add_epi8(_mm256_shuffle_epi8(table, low),
                                      _mm256_shuffle_epi8(table, high));
    const __m256i bits =
        _mm256_madd_epi16(_mm256_maddubs_epi16(n, bytes), shorts);
    const __m256i sum = _mm256_loadu_si256((const void *)(sums + m));
    _mm256_storeu_si256((void *)(sums + m), _mm256_add_epi32(sum, bits));
  }
#endif
  for (; m < count; ++m) sums[m] += bits_set(word ^ own[m]);
}""",
  'rounded': """\
/* The nearest whole number of steps, ties to even ones. */
static inline int32_t rounded(float x, float step, float low, float high) {
  const float code = rintf(x / step);
  return (int32_t)(code < low ? low : code > high ? high : code);
}""",
  'rescaled': """\
/* x * by / 2**31 * 2**shift with two roundings, as gemmlowp does. */
static inline int32_t rescaled(int32_t x, int32_t by, int shift, int32_t low,
                               int32_t high) {
  const int left = shift > 0 ? shift : 0, right = shift < 0 ? -shift : 0;
  int64_t wide = (int64_t)x * ((int64_t)1 << left);
  wide = wide > INT32_MAX ? INT32_MAX : wide < -INT32_MAX ? -INT32_MAX : wide;
  const int64_t product = wide * by;
  const int64_t size = product < 0 ? -product : product;
  const int64_t most = (size + ((int64_t)1 << 30)) >> 31;
  const int64_t half = ((int64_t)1 << right) >> 1;
  const int64_t code = right > 31 ? 0 : (most + half) >> right;
  const int64_t y = product < 0 ? -code : code;
  return (int32_t)(y < low ? low : y > high ? high : y);
}""",
  'shrunk': """\
/* rescaled(x, by, -right, low, high), which compilers can vectorise. */
static inline int32_t shrunk(int32_t x, int32_t by, int right, int32_t low,
                             int32_t high) {
  const uint32_t size = x < 0 ? 0u - (uint32_t)x : (uint32_t)x;
  const uint64_t product = (uint64_t)size * (uint32_t)by;
  const uint32_t most = (uint32_t)((product + (1u << 30)) >> 31);
  const uint32_t code = (most + ((1u << right) >> 1)) >> right;
  const int32_t y = x < 0 ? -(int32_t)code : (int32_t)code;
  return y < low ? low : y > high ? high : y;
}""",
}
