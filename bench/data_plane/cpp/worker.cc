// A worker without an engine: it answers the gateway's handshake, reports a load that never refuses anybody, and
// generates tokens at the pace that a request asks for. For proxies that know nothing of workers it answers the public
// API too, with the same stream.
//
// A request says in `sampling.max_output_tokens` how many tokens it wants, and in `sampling.seed` how many microseconds
// lie between them; 0 is as fast as the wire takes them. The first token comes at once. Each token's text is the time
// at which it was sent, its id counts from 0.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "clock.h"
#include "options.h"
#include "paced_stream.h"
#include "tidegate/inference/v1/inference_service.grpc.pb.h"
#include "tidegate/worker/v1/worker_service.grpc.pb.h"

namespace inference = tidegate::inference::v1;
namespace worker = tidegate::worker::v1;

using bench::NowUs;
using bench::PacedStream;
using bench::Pacer;
using Response = inference::GenerateResponse;

namespace {

constexpr std::chrono::milliseconds kLoadInterval{200};
constexpr int64_t kBlocks = 10'000'000'000;
constexpr int kBlockSize = 16;
constexpr int kPieceBytes = 1 << 20;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Generation : public PacedStream<Response> {
 public:
  Generation(Pacer* pacer, const inference::SamplingOptions& sampling, int prompt_tokens,
             grpc::CallbackServerContext* context)
      : PacedStream(pacer), tokens_(sampling.max_output_tokens()), interval_us_(sampling.seed()), context_(context) {
    thread_local std::minstd_rand random{std::random_device{}()};
    due_us_ = NowUs() + (interval_us_ ? random() % interval_us_ : 0);
    auto* started = response_.mutable_started();
    started->set_response_id("bench");
    started->set_model("bench");
    started->set_prompt_token_count(prompt_tokens);
    StartWrite(&response_);
  }

  void Due() override { WriteNext(); }

  void OnWriteDone(bool ok) override {
    if (!ok || IsCancelled()) return End(grpc::Status::CANCELLED);
    if (sent_ == 0 || sent_ == tokens_ || interval_us_ == 0) return WriteNext();
    due_us_ += interval_us_;
    WaitUntil(due_us_);
  }

 private:
  void WriteNext() {
    if (sent_ == tokens_) return WriteFinished();
    auto* delta = response_.mutable_delta();
    delta->Clear();
    delta->add_text(bench::Stamp(NowUs()));
    delta->add_token_ids(sent_++);
    StartWrite(&response_);
  }

  void WriteFinished() {
    auto* finished = response_.mutable_finished();
    finished->set_reason(inference::FINISH_REASON_LENGTH);
    finished->mutable_usage()->set_output_token_count(tokens_);
    context_->AddTrailingMetadata("tidegate-finished-bin", finished->SerializeAsString());
    EndWith(response_);
  }

  const int tokens_;
  const uint64_t interval_us_;
  grpc::CallbackServerContext* const context_;
  Response response_;
  uint64_t due_us_;
  int sent_ = 0;
};

// The files of a checkpoint, cut into pieces.
class TokenizerFiles : public grpc::ServerWriteReactor<worker::GetTokenizerResponse> {
 public:
  explicit TokenizerFiles(const std::string& directory) {
    for (const auto& [kind, name] : {std::pair{worker::TOKENIZER_FILE_TOKENIZER_JSON, "tokenizer.json"},
                                     std::pair{worker::TOKENIZER_FILE_CHAT_TEMPLATE, "chat_template.jinja"},
                                     std::pair{worker::TOKENIZER_FILE_TOKENIZER_CONFIG, "tokenizer_config.json"}}) {
      const std::string content = ReadFile(directory + "/" + name);
      for (size_t start = 0; start < content.size(); start += kPieceBytes) {
        auto& piece = pieces_.emplace_back();
        piece.set_file(kind);
        piece.set_data(content.substr(start, kPieceBytes));
      }
    }
    OnWriteDone(true);
  }

  void OnWriteDone(bool ok) override {
    if (ok && next_ < pieces_.size()) return StartWrite(&pieces_[next_++]);
    Finish(grpc::Status::OK);
  }

  void OnDone() override { delete this; }

 private:
  std::vector<worker::GetTokenizerResponse> pieces_;
  size_t next_ = 0;
};

// Tokens and the handshake are served by callbacks. Load reports have a thread of their own: in a flood the callbacks of
// tokens leave no room between them, and a gateway takes a worker without reports for dead.
template <class Base>
using WithCallbacks = worker::WorkerService::WithCallbackMethod_Generate<
    worker::WorkerService::WithCallbackMethod_GetModel<worker::WorkerService::WithCallbackMethod_GetTokenizer<Base>>>;

class WorkerService : public WithCallbacks<worker::WorkerService::Service> {
 public:
  WorkerService(Pacer* pacer, std::string model_file, std::string tokenizer_directory)
      : pacer_(pacer), tokenizer_directory_(std::move(tokenizer_directory)) {
    model_.ParseFromString(ReadFile(model_file));
  }

  grpc::ServerWriteReactor<Response>* Generate(grpc::CallbackServerContext* context,
                                               const worker::GenerateRequest* request) override {
    return new Generation(pacer_, request->sampling(), static_cast<int>(request->prompt_token_ids().size() / 4), context);
  }

  grpc::Status WatchLoad(grpc::ServerContext*, const worker::WatchLoadRequest*,
                         grpc::ServerWriter<worker::WatchLoadResponse>* writer) override {
    worker::WatchLoadResponse response;
    auto* report = response.mutable_load_report();
    report->set_total_block_count(kBlocks);
    report->set_free_block_count(kBlocks);
    report->set_block_size(kBlockSize);
    report->set_prefill_tokens_per_second(1e6);
    report->set_decode_tokens_per_second(1e6);
    do {
      report->set_sample_number(report->sample_number() + 1);
      std::this_thread::sleep_for(kLoadInterval);
    } while (writer->Write(response));
    return grpc::Status::OK;
  }

  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const worker::GetModelRequest*,
                                     worker::GetModelResponse* response) override {
    *response = model_;
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerWriteReactor<worker::GetTokenizerResponse>* GetTokenizer(grpc::CallbackServerContext*,
                                                                       const worker::GetTokenizerRequest*) override {
    return new TokenizerFiles(tokenizer_directory_);
  }

 private:
  Pacer* const pacer_;
  const std::string tokenizer_directory_;
  worker::GetModelResponse model_;
};

class PublicService : public inference::InferenceService::CallbackService {
 public:
  explicit PublicService(Pacer* pacer) : pacer_(pacer) {}

  grpc::ServerWriteReactor<Response>* Generate(grpc::CallbackServerContext* context,
                                               const inference::GenerateRequest* request) override {
    return new Generation(pacer_, request->sampling(), 0, context);
  }

 private:
  Pacer* const pacer_;
};

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv, {{"port", "0"}, {"model", ""}, {"tokenizer", ""}});
  Pacer pacer;
  WorkerService worker_service(&pacer, options.Text("model"), options.Text("tokenizer"));
  PublicService public_service(&pacer);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:" + options.Text("port"), grpc::InsecureServerCredentials(), &port);
  builder.AddChannelArgument("grpc.so_reuseport", 0);
  builder.AddChannelArgument("grpc.max_concurrent_streams", 100'000);
  builder.AddChannelArgument("grpc.http2.min_ping_interval_without_data_ms", 5'000);
  builder.RegisterService(&worker_service);
  builder.RegisterService(&public_service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server || port == 0) return 1;
  std::printf("ready on 127.0.0.1:%d\n", port);
  std::fflush(stdout);
  server->Wait();
}
