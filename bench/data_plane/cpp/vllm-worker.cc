// What worker.cc is to Tidegate, to SMG: an engine of its own protocol that answers its questions and makes tokens up.
// --model-dir is where SMG finds the tokenizer. `max_tokens` says how many tokens, `seed` how many microseconds lie
// between them.
#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <random>
#include <string>

#include "clock.h"
#include "options.h"
#include "paced_stream.h"
#include "vllm_engine.grpc.pb.h"

namespace engine = vllm::grpc::engine;

using bench::NowUs;
using bench::PacedStream;
using bench::Pacer;

namespace {

constexpr int kContextLength = 100'000'000;
constexpr int kVocabularySize = 460;
// Ids of ordinary words in the tokenizer of the sim.
constexpr int kFirstToken = 300;
constexpr int kTokens = 150;

class Generation : public PacedStream<engine::GenerateResponse> {
 public:
  Generation(Pacer* pacer, const engine::GenerateRequest& request)
      : PacedStream(pacer),
        tokens_(request.sampling_params().max_tokens()),
        interval_us_(request.sampling_params().seed()),
        prompt_tokens_(request.tokenized().input_ids_size()) {
    thread_local std::minstd_rand random{std::random_device{}()};
    due_us_ = NowUs() + (interval_us_ ? random() % interval_us_ : 0);
    Due();
  }

  void Due() override {
    auto* chunk = response_.mutable_chunk();
    chunk->Clear();
    chunk->add_token_ids(kFirstToken + sent_ * 37 % kTokens);
    chunk->set_prompt_tokens(prompt_tokens_);
    chunk->set_completion_tokens(++sent_);
    StartWrite(&response_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok || IsCancelled()) return End(grpc::Status::CANCELLED);
    if (sent_ == tokens_) return WriteComplete();
    if (interval_us_ == 0) return Due();
    due_us_ += interval_us_;
    WaitUntil(due_us_);
  }

 private:
  void WriteComplete() {
    auto* complete = response_.mutable_complete();
    for (int i = 0; i < tokens_; ++i) complete->add_output_ids(kFirstToken + i * 37 % kTokens);
    complete->set_finish_reason("length");
    complete->set_prompt_tokens(prompt_tokens_);
    complete->set_completion_tokens(tokens_);
    EndWith(response_);
  }

  const int tokens_;
  const uint64_t interval_us_;
  const int prompt_tokens_;
  engine::GenerateResponse response_;
  uint64_t due_us_;
  int sent_ = 0;
};

class Engine : public engine::VllmEngine::CallbackService {
 public:
  Engine(Pacer* pacer, std::string model_dir) : pacer_(pacer), model_dir_(std::move(model_dir)) {}

  grpc::ServerWriteReactor<engine::GenerateResponse>* Generate(grpc::CallbackServerContext*,
                                                               const engine::GenerateRequest* request) override {
    return new Generation(pacer_, *request);
  }

  grpc::ServerUnaryReactor* HealthCheck(grpc::CallbackServerContext* context, const engine::HealthCheckRequest*,
                                        engine::HealthCheckResponse* response) override {
    response->set_healthy(true);
    return Ok(context);
  }

  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context, const engine::GetModelInfoRequest*,
                                         engine::GetModelInfoResponse* response) override {
    response->set_model_path(model_dir_);
    response->set_tokenizer_path(model_dir_);
    response->set_served_model_name("bench");
    response->set_model_type("llama");
    response->set_is_generation(true);
    response->set_max_context_length(kContextLength);
    response->set_max_req_input_len(kContextLength);
    response->set_vocab_size(kVocabularySize);
    response->add_eos_token_ids(0);
    return Ok(context);
  }

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context, const engine::GetServerInfoRequest*,
                                          engine::GetServerInfoResponse* response) override {
    response->set_server_type("vllm-grpc");
    response->set_data_parallel_size(1);
    response->set_block_size(16);
    response->set_max_num_seqs(100'000);
    response->set_uptime_seconds(100);
    return Ok(context);
  }

  grpc::ServerUnaryReactor* Abort(grpc::CallbackServerContext* context, const engine::AbortRequest*,
                                  engine::AbortResponse*) override {
    return Ok(context);
  }

  grpc::ServerUnaryReactor* GetLoads(grpc::CallbackServerContext* context, const engine::GetLoadsRequest*,
                                     engine::GetLoadsResponse* response) override {
    response->set_dp_rank_count(1);
    auto* load = response->add_loads();
    load->set_max_total_num_tokens(1'000'000'000);
    load->set_max_running_requests(100'000);
    return Ok(context);
  }

 private:
  static grpc::ServerUnaryReactor* Ok(grpc::CallbackServerContext* context) {
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  Pacer* const pacer_;
  const std::string model_dir_;
};

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv, {{"port", "0"}, {"model-dir", ""}});
  Pacer pacer;
  Engine service(&pacer, options.Text("model-dir"));
  grpc::EnableDefaultHealthCheckService(true);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:" + options.Text("port"), grpc::InsecureServerCredentials(), &port);
  builder.AddChannelArgument("grpc.so_reuseport", 0);
  builder.AddChannelArgument("grpc.max_concurrent_streams", 100'000);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server || port == 0) return 1;
  server->GetHealthCheckService()->SetServingStatus("vllm.grpc.engine.VllmEngine", true);
  std::printf("ready on 127.0.0.1:%d\n", port);
  std::fflush(stdout);
  server->Wait();
}
