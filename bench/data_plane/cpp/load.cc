// Requests of the public API from gRPC's own C++ library, as users' clients send them: --requests=N in all, --streams of
// them at a time over --channels connections, each read to its end. Streams that stay open are what streams.cc is for.
#include <grpcpp/grpcpp.h>

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
using bench::Totals;

namespace {

constexpr auto kPatience = std::chrono::seconds(40);

struct Plan {
  std::string model;
  std::string prompt;
  int streams;
  int requests;
  int tokens;
  int64_t interval_us;
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

  int Run() {
    if (totals_.failed_requests > 0) return Report(0);
    const uint64_t started_us = NowUs();
    launched_ = std::min(plan_.streams, plan_.requests);
    for (int i = 0, first = launched_; i < first; ++i) Launch(i);
    std::unique_lock<std::mutex> lock(mutex_);
    const bool is_done = changed_.wait_for(lock, kPatience, [this] { return ended_ == plan_.requests; });
    if (!is_done) totals_.Fail("requests that do not end");
    return Report((NowUs() - started_us) / 1e6);
  }

  const Plan& plan() const { return plan_; }
  inference::InferenceService::Stub* StubFor(int number) { return stubs_[number % stubs_.size()].get(); }

  void Launch(int number);

  void OnEnd(float first_token_us, uint64_t messages, const std::string& error) {
    int next = -1;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      totals_.messages += messages;
      if (error.empty()) {
        ++totals_.finished_requests;
        totals_.first_token_us.push_back(first_token_us);
      } else {
        totals_.Fail(error);
      }
      ++ended_;
      if (launched_ < plan_.requests) next = launched_++;
      changed_.notify_one();
    }
    if (next >= 0) Launch(next);
  }

 private:
  int Report(double wall_s) {
    totals_.Print("end", wall_s);
    return totals_.failed_requests == 0 ? 0 : 1;
  }

  const Plan plan_;
  std::vector<std::unique_ptr<inference::InferenceService::Stub>> stubs_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Totals totals_;
  int launched_ = 0;
  int ended_ = 0;
};

// One request. It deletes itself when gRPC has done with it.
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

  void OnReadDone(bool ok) override {
    if (!ok) return;
    ++messages_;
    if (response_.has_delta()) {
      if (next_id_ == 0) first_token_us_ = static_cast<float>(NowUs() - started_us_);
      const auto& delta = response_.delta();
      for (const int id : delta.token_ids()) {
        if (id != next_id_++) error_ = "a token is missing";
      }
    } else if (response_.has_finished()) {
      is_finished_ = true;
    }
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    if (!status.ok()) error_ = std::to_string(status.error_code()) + " " + status.error_message();
    if (status.ok() && !is_finished_) error_ = "OK without Finished";
    load_->OnEnd(first_token_us_, messages_, error_);
    delete this;
  }

 private:
  Load* const load_;
  grpc::ClientContext context_;
  inference::GenerateRequest request_;
  inference::GenerateResponse response_;
  uint64_t messages_ = 0;
  std::string error_;
  uint64_t started_us_ = 0;
  float first_token_us_ = 0;
  int next_id_ = 0;
  bool is_finished_ = false;
};

void Load::Launch(int number) { (new Stream(this, number))->Start(StubFor(number)); }

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv,
                               {{"target", ""},
                                {"model", "bench"},
                                {"prompt-file", ""},
                                {"streams", "1"},
                                {"requests", "1"},
                                {"tokens", "1"},
                                {"interval-us", "0"},
                                {"channels", "1"}});
  std::ifstream prompt(options.Text("prompt-file"));
  Plan plan{options.Text("model"),
            {std::istreambuf_iterator<char>(prompt), {}},
            static_cast<int>(options.Number("streams")),
            static_cast<int>(options.Number("requests")),
            static_cast<int>(options.Number("tokens")),
            options.Number("interval-us")};
  // Requests may outlive main's patience: what they refer to is never destroyed.
  auto* load = new Load(std::move(plan), options.Text("target"), static_cast<int>(options.Number("channels")));
  const int code = load->Run();
  std::fflush(stdout);
  _exit(code);
}
