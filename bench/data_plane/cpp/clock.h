// Time as load generator and fake workers share it: one clock of one machine, so that a worker may write when it sent a
// token into the token's text, and a client may subtract.
#pragma once

#include <time.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace bench {

inline uint64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

inline uint64_t NowUs() { return NowNs() / 1000; }

// Eight printable characters of six bits each: microseconds, which repeat after 8.9 years.
constexpr int kStampLength = 8;

inline std::string Stamp(uint64_t us) {
  std::string text(kStampLength, '\0');
  for (int i = 0; i < kStampLength; ++i) text[i] = static_cast<char>('0' + ((us >> (6 * i)) & 63));
  return text;
}

// 0 for a text that is no stamp.
inline uint64_t ReadStamp(std::string_view text) {
  if (text.size() != kStampLength) return 0;
  uint64_t us = 0;
  for (int i = 0; i < kStampLength; ++i) us |= static_cast<uint64_t>((text[i] - '0') & 63) << (6 * i);
  return us;
}

}  // namespace bench
