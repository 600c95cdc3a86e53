// What falls due when. Time goes in steps of a millisecond, as an engine's does: what falls due within one goes out
// together.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

namespace bench {

template <class Item>
class Schedule {
 public:
  void Add(Item* item, uint64_t at_us) { steps_[Step(at_us)].push_back(item); }

  // `at_us` as it was added with.
  void Remove(Item* item, uint64_t at_us) {
    const auto step = steps_.find(Step(at_us));
    if (step == steps_.end()) return;
    std::vector<Item*>& items = step->second;
    items.erase(std::remove(items.begin(), items.end(), item), items.end());
    if (items.empty()) steps_.erase(step);
  }

  // Takes out all of the first step that is over, empty when none is.
  std::vector<Item*> Take(uint64_t now_us) {
    if (steps_.empty() || NextUs() > now_us) return {};
    std::vector<Item*> items = std::move(steps_.begin()->second);
    steps_.erase(steps_.begin());
    return items;
  }

  // When the first step is over; 0 if nothing is scheduled.
  uint64_t NextUs() const { return steps_.empty() ? 0 : steps_.begin()->first * kStepUs; }

 private:
  static constexpr uint64_t kStepUs = 1000;

  static uint64_t Step(uint64_t at_us) { return (at_us + kStepUs - 1) / kStepUs; }

  std::map<uint64_t, std::vector<Item*>> steps_;
};

}  // namespace bench
