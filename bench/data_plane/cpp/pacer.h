// Calls streams back when their next token is due. Time goes in steps of a millisecond, as an engine's does: what falls
// due within one step goes out together.
#pragma once

#include <time.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "clock.h"

namespace bench {

class Paced {
 public:
  virtual ~Paced() = default;
  virtual void Due() = 0;
};

class Pacer {
 public:
  Pacer() : thread_([this] { Run(); }) { thread_.detach(); }

  void Schedule(Paced* stream, uint64_t at_us) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const bool was_idle = queue_.empty();
    queue_.emplace(at_us, stream);
    if (was_idle) filled_.notify_one();
  }

  // Whether `stream` stood in the queue at `at_us`. If so, its Due() will not be called.
  bool Remove(Paced* stream, uint64_t at_us) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return queue_.erase({at_us, stream}) > 0;
  }

 private:
  [[noreturn]] void Run() {
    std::vector<Paced*> due;
    for (;;) {
      due.clear();
      {
        std::unique_lock<std::mutex> lock(mutex_);
        filled_.wait(lock, [this] { return !queue_.empty(); });
        const uint64_t now_us = NowUs();
        while (!queue_.empty() && queue_.begin()->first <= now_us) {
          due.push_back(queue_.begin()->second);
          queue_.erase(queue_.begin());
        }
      }
      for (Paced* stream : due) stream->Due();
      const uint64_t next_ns = (NowUs() / kStepUs + 1) * kStepUs * 1000;
      const timespec next{static_cast<time_t>(next_ns / 1'000'000'000u), static_cast<long>(next_ns % 1'000'000'000u)};
      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, nullptr);
    }
  }

  static constexpr uint64_t kStepUs = 1000;

  std::mutex mutex_;
  std::condition_variable filled_;
  std::set<std::pair<uint64_t, Paced*>> queue_;
  std::thread thread_;
};

}  // namespace bench
