// What a load generator has measured, and how it says so.
#pragma once

#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <string>
#include <vector>

namespace bench {

// Microseconds, in the order in which they came; `Percentile` reorders them.
using Samples = std::vector<float>;

inline double Percentile(Samples& samples, double share) {
  if (samples.empty()) return -1;
  const size_t index = std::min(samples.size() - 1, static_cast<size_t>(share * samples.size()));
  std::nth_element(samples.begin(), samples.begin() + index, samples.end());
  return samples[index];
}

inline double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

inline std::string JsonText(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text.substr(0, 200)) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  return quoted + '"';
}

struct Totals {
  uint64_t messages = 0;
  uint64_t finished_requests = 0;
  uint64_t failed_requests = 0;
  std::string first_error;
  Samples first_token_us;
  Samples latency_us;

  void Fail(const std::string& error) {
    if (failed_requests++ == 0) first_error = error;
  }

  // One line: whoever reads it takes it for now, and reads the meters of the processes between us and the worker.
  void Print(const char* event, double wall_s) {
    std::printf(
        "{\"event\":\"%s\",\"wall_s\":%.4f,\"messages\":%lu,\"finished\":%lu,\"failed\":%lu,\"error\":%s,"
        "\"client_cpu_s\":%.4f,\"ttft_p50_us\":%.1f,\"ttft_p99_us\":%.1f,\"latency_p50_us\":%.1f,"
        "\"latency_p99_us\":%.1f}\n",
        event, wall_s, messages, finished_requests, failed_requests, JsonText(first_error).c_str(), CpuSeconds(),
        Percentile(first_token_us, 0.5), Percentile(first_token_us, 0.99), Percentile(latency_us, 0.5),
        Percentile(latency_us, 0.99));
    std::fflush(stdout);
  }
};

}  // namespace bench
