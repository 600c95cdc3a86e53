// Load on the public API, in one of two forms.
//
// --requests=N: N requests in all, --streams of them at a time, each read to its end.
// --seconds=S: --streams streams are opened and kept open. "open" is printed when each has its first token, "end" S
// seconds later; then they are cancelled. Between the two lines there is nothing but the flow of tokens.
// With --read-messages=M a stream stops reading after so many messages, and stays open.
//
// Counts and latencies of "end" are of the time after "open"; TTFT is of all requests.
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "clock.h"
#include "options.h"
#include "samples.h"
#include "tidegate/inference/v1/inference_service.grpc.pb.h"

namespace inference = tidegate::inference::v1;

using bench::NowUs;
using bench::Samples;
using bench::Totals;

namespace {

constexpr auto kPatience = std::chrono::seconds(40);
// Streams that wait for their first token at one time, while many are opened: a burst is not what is measured.
constexpr int kOpening = 200;

struct Plan {
  std::string model;
  std::string prompt;
  int streams;
  int requests;
  int tokens;
  int64_t interval_us;
  int64_t read_messages;

  bool IsTimed() const { return requests == 0; }
};

class Stream;

class Load {
 public:
  Load(Plan plan, const std::string& target, int channels) : plan_(std::move(plan)) {
    for (int i = 0; i < channels; ++i) {
      grpc::ChannelArguments arguments;
      arguments.SetInt("grpc.use_local_subchannel_pool", 1);
      auto channel = grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
      if (!channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(10))) {
        totals_.Fail("no connection");
      }
      stubs_.push_back(inference::InferenceService::NewStub(channel));
    }
  }

  int Run(double seconds) {
    if (totals_.failed_requests > 0) return Report("end", 0);
    started_us_ = NowUs();
    const int first = std::min(plan_.streams, plan_.IsTimed() ? kOpening : plan_.requests);
    launched_ = first;
    for (int i = 0; i < first; ++i) Launch(i);
    return plan_.IsTimed() ? RunTimed(seconds) : RunRequests();
  }

  const Plan& plan() const { return plan_; }
  bool IsMeasuring() const { return is_measuring_.load(std::memory_order_relaxed); }
  uint64_t measured_from_us() const { return measured_from_us_.load(std::memory_order_relaxed); }
  inference::InferenceService::Stub* StubFor(int number) { return stubs_[number % stubs_.size()].get(); }

  void Launch(int number);

  void OnFirstToken(float us) {
    int next = -1;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      totals_.first_token_us.push_back(us);
      ++opened_;
      if (plan_.IsTimed() && launched_ < plan_.streams) next = launched_++;
      changed_.notify_one();
    }
    if (next >= 0) Launch(next);
  }

  void OnEnd(const Samples& latency_us, uint64_t messages, const std::string& error) {
    int next = -1;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      totals_.messages += messages;
      totals_.latency_us.insert(totals_.latency_us.end(), latency_us.begin(), latency_us.end());
      if (error.empty()) {
        ++totals_.finished_requests;
      } else {
        totals_.Fail(error);
      }
      ++ended_;
      if (!plan_.IsTimed() && launched_ < plan_.requests) next = launched_++;
      changed_.notify_one();
    }
    if (next >= 0) Launch(next);
  }

 private:
  int RunRequests() {
    std::unique_lock<std::mutex> lock(mutex_);
    const bool is_done = changed_.wait_for(lock, kPatience, [this] { return ended_ == plan_.requests; });
    if (!is_done) totals_.Fail("requests that do not end");
    return Report("end", (NowUs() - started_us_) / 1e6);
  }

  int RunTimed(double seconds);

  int Report(const char* event, double wall_s) {
    totals_.Print(event, wall_s);
    return totals_.failed_requests == 0 ? 0 : 1;
  }

  const Plan plan_;
  std::vector<std::unique_ptr<inference::InferenceService::Stub>> stubs_;
  std::vector<Stream*> open_;
  std::atomic<bool> is_measuring_{false};
  std::atomic<uint64_t> measured_from_us_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  Totals totals_;
  int launched_ = 0;
  int opened_ = 0;
  int ended_ = 0;
  uint64_t started_us_ = 0;
};

class Stream : public grpc::ClientReadReactor<inference::GenerateResponse> {
 public:
  Stream(Load* load, int number) : load_(load) {
    const Plan& plan = load->plan();
    request_.set_model(plan.model);
    auto* message = request_.mutable_chat()->add_messages();
    message->set_role(inference::CHAT_ROLE_USER);
    message->set_content("Request " + std::to_string(number) + ". " + plan.prompt);
    request_.mutable_sampling()->set_max_output_tokens(plan.tokens);
    request_.mutable_sampling()->set_seed(plan.interval_us);
  }

  void Start(inference::InferenceService::Stub* stub) {
    started_us_ = NowUs();
    stub->async()->Generate(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  // Counted from here on by whoever asks; only while no message is being read.
  uint64_t messages() const { return messages_.load(std::memory_order_relaxed); }

  void Cancel() {
    is_cancelled_ = true;
    context_.TryCancel();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    const uint64_t now_us = NowUs();
    const uint64_t seen = messages_.fetch_add(1, std::memory_order_relaxed) + 1;
    if (response_.has_delta()) {
      const auto& delta = response_.delta();
      for (const int id : delta.token_ids()) {
        if (id != next_id_++) error_ = "a token is missing";
      }
      const uint64_t sent_us = bench::ReadStamp(delta.text(0));
      if (!has_token_) {
        has_token_ = true;
        load_->OnFirstToken(static_cast<float>(now_us - started_us_));
      }
      if (load_->IsMeasuring() && sent_us >= load_->measured_from_us()) latency_us_.push_back(now_us - sent_us);
    } else if (response_.has_finished()) {
      is_finished_ = true;
    }
    if (seen != static_cast<uint64_t>(load_->plan().read_messages)) StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    if (error_.empty() && !is_cancelled_) {
      if (!status.ok()) error_ = std::to_string(status.error_code()) + " " + status.error_message();
      if (status.ok() && !is_finished_) error_ = "OK without Finished";
    }
    load_->OnEnd(latency_us_, messages(), error_);
    if (!load_->plan().IsTimed()) delete this;
  }

 private:
  Load* const load_;
  grpc::ClientContext context_;
  inference::GenerateRequest request_;
  inference::GenerateResponse response_;
  std::atomic<uint64_t> messages_{0};
  std::atomic<bool> is_cancelled_{false};
  Samples latency_us_;
  std::string error_;
  uint64_t started_us_ = 0;
  int next_id_ = 0;
  bool has_token_ = false;
  bool is_finished_ = false;
};

void Load::Launch(int number) {
  auto* stream = new Stream(this, number);
  if (plan_.IsTimed()) {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_.push_back(stream);
  }
  stream->Start(StubFor(number));
}

int Load::RunTimed(double seconds) {
  const auto messages = [this] {
    uint64_t sum = 0;
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const Stream* stream : open_) sum += stream->messages();
    return sum;
  };
  {
    std::unique_lock<std::mutex> lock(mutex_);
    const bool is_open = changed_.wait_for(lock, kPatience, [this] { return opened_ == plan_.streams || ended_ > 0; });
    if (!is_open || ended_ > 0) totals_.Fail(std::to_string(opened_) + " streams opened");
  }
  uint64_t first = 0;
  if (totals_.failed_requests == 0) {
    // Let the burst of openings drain before anything is measured.
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    measured_from_us_ = NowUs();
    is_measuring_ = true;
    first = messages();
    Totals().Print("open", (NowUs() - started_us_) / 1e6);
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  }
  Totals at_end;
  at_end.messages = messages() - first;
  at_end.Print("close", (NowUs() - measured_from_us_) / 1e6);
  is_measuring_ = false;
  std::unique_lock<std::mutex> lock(mutex_);
  const std::vector<Stream*> open = open_;
  lock.unlock();
  for (Stream* stream : open) stream->Cancel();
  lock.lock();
  changed_.wait_for(lock, kPatience, [&] { return ended_ == static_cast<int>(open.size()); });
  totals_.messages = at_end.messages;
  return Report("end", seconds);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv,
                               {{"target", ""},
                                {"model", "bench"},
                                {"prompt-file", ""},
                                {"streams", "1"},
                                {"requests", "0"},
                                {"seconds", "0"},
                                {"tokens", "1"},
                                {"interval-us", "0"},
                                {"read-messages", "0"},
                                {"channels", "1"}});
  std::ifstream prompt(options.Text("prompt-file"));
  Plan plan{options.Text("model"),
            {std::istreambuf_iterator<char>(prompt), {}},
            static_cast<int>(options.Number("streams")),
            static_cast<int>(options.Number("requests")),
            static_cast<int>(options.Number("tokens")),
            options.Number("interval-us"),
            options.Number("read-messages")};
  // Streams may outlive main's patience: what they refer to is never destroyed.
  auto* load = new Load(std::move(plan), options.Text("target"), static_cast<int>(options.Number("channels")));
  const int code = load->Run(std::atof(options.Text("seconds").c_str()));
  std::fflush(stdout);
  _exit(code);
}
