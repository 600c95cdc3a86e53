// A worker without an engine: it answers the gateway's handshake, reports a load that never refuses anybody, and
// generates tokens at the pace that a request asks for. For proxies that know nothing of workers it answers the public
// API too, with the same stream.
//
// A request says in `sampling.max_output_tokens` how many tokens it wants, and in `sampling.seed` how many microseconds
// lie between them; 0 is as fast as the wire takes them. The first token comes at once. Each token's text is the time
// at which it was sent, its id counts from 0.
//
// One thread, and HTTP/2 by nghttp2: a token costs it a microsecond or two, so that two cores have room for what is
// measured. As with the real worker, the tokens of one step leave in one write for each connection.
#include <sys/timerfd.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "clock.h"
#include "http2.h"
#include "messages.h"
#include "options.h"
#include "schedule.h"
#include "tidegate/inference/v1/inference_service.pb.h"
#include "tidegate/worker/v1/worker_service.pb.h"

namespace inference = tidegate::inference::v1;
namespace worker = tidegate::worker::v1;

using bench::Field;
using bench::NowUs;

namespace {

constexpr uint64_t kLoadIntervalUs = 200'000;
constexpr int64_t kBlocks = 10'000'000'000;
constexpr int kBlockSize = 16;
constexpr int kPieceBytes = 1 << 20;
constexpr int kMaxStreams = 100'000;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The value of a field whose name ends in "-bin".
std::string Base64(std::string_view bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  uint32_t bits = 0;
  int count = 0;
  for (const char byte : bytes) {
    bits = bits << 8 | static_cast<uint8_t>(byte);
    for (count += 8; count >= 6; count -= 6) text += kDigits[bits >> (count - 6) & 63];
  }
  if (count > 0) text += kDigits[bits << (6 - count) & 63];
  return text;
}

// What one call is answered with: messages, each at its time.
class Answer {
 public:
  virtual ~Answer() = default;
  // Whether there is another message.
  virtual bool IsOver() const = 0;
  // When it may leave.
  virtual uint64_t DueUs() const { return 0; }
  // Adds it, in gRPC's frame. Only while not over.
  virtual void AppendNext(std::string* out) = 0;
  // The trailer `tidegate-finished-bin`; none if empty.
  virtual const std::string& finished() const {
    static const std::string none;
    return none;
  }
};

class Generation : public Answer {
 public:
  Generation(const inference::SamplingOptions& sampling, int prompt_tokens)
      : tokens_(sampling.max_output_tokens()), interval_us_(sampling.seed()), prompt_tokens_(prompt_tokens) {
    static std::minstd_rand random{std::random_device{}()};
    phase_us_ = NowUs() + (interval_us_ ? random() % interval_us_ : 0);
  }

  bool IsOver() const override { return is_finished_; }

  uint64_t DueUs() const override {
    return sent_ == 0 || sent_ == tokens_ ? 0 : phase_us_ + static_cast<uint64_t>(sent_) * interval_us_;
  }

  void AppendNext(std::string* out) override {
    static inference::GenerateResponse response;
    if (!is_started_) {
      is_started_ = true;
      auto* started = response.mutable_started();
      started->set_response_id("bench");
      started->set_model("bench");
      started->set_prompt_token_count(prompt_tokens_);
    } else if (sent_ < tokens_) {
      auto* delta = response.mutable_delta();
      delta->Clear();
      delta->add_text(bench::Stamp(NowUs()));
      delta->add_token_ids(sent_++);
    } else {
      is_finished_ = true;
      auto* finished = response.mutable_finished();
      finished->set_reason(inference::FINISH_REASON_LENGTH);
      finished->mutable_usage()->set_output_token_count(tokens_);
      finished_ = Base64(finished->SerializeAsString());
    }
    bench::AppendMessage(response, out);
  }

  const std::string& finished() const override { return finished_; }

 private:
  const int tokens_;
  const uint64_t interval_us_;
  const int prompt_tokens_;
  uint64_t phase_us_;
  int sent_ = 0;
  bool is_started_ = false;
  bool is_finished_ = false;
  std::string finished_;
};

// Messages that are there from the start.
class Ready : public Answer {
 public:
  explicit Ready(std::vector<std::string> framed) : framed_(std::move(framed)) {}

  bool IsOver() const override { return next_ == framed_.size(); }
  void AppendNext(std::string* out) override { out->append(framed_[next_++]); }

 private:
  const std::vector<std::string> framed_;
  size_t next_ = 0;
};

class LoadReports : public Answer {
 public:
  bool IsOver() const override { return false; }
  uint64_t DueUs() const override { return due_us_; }

  void AppendNext(std::string* out) override {
    worker::WatchLoadResponse response;
    auto* report = response.mutable_load_report();
    report->set_sample_number(++number_);
    report->set_total_block_count(kBlocks);
    report->set_free_block_count(kBlocks);
    report->set_block_size(kBlockSize);
    report->set_prefill_tokens_per_second(1e6);
    report->set_decode_tokens_per_second(1e6);
    bench::AppendMessage(response, out);
    due_us_ = NowUs() + kLoadIntervalUs;
  }

 private:
  int64_t number_ = 0;
  uint64_t due_us_ = 0;
};

// What is answered to which method.
class Service {
 public:
  Service(const std::string& model_file, const std::string& tokenizer_directory) {
    worker::GetModelResponse model;
    model.ParseFromString(ReadFile(model_file));
    bench::AppendMessage(model, &model_.emplace_back());
    for (const auto& [kind, name] : {std::pair{worker::TOKENIZER_FILE_TOKENIZER_JSON, "/tokenizer.json"},
                                     std::pair{worker::TOKENIZER_FILE_CHAT_TEMPLATE, "/chat_template.jinja"},
                                     std::pair{worker::TOKENIZER_FILE_TOKENIZER_CONFIG, "/tokenizer_config.json"}}) {
      const std::string content = ReadFile(tokenizer_directory + name);
      for (size_t start = 0; start < content.size(); start += kPieceBytes) {
        worker::GetTokenizerResponse piece;
        piece.set_file(kind);
        piece.set_data(content.substr(start, kPieceBytes));
        bench::AppendMessage(piece, &tokenizer_.emplace_back());
      }
    }
  }

  // Null for a method that there is not.
  std::unique_ptr<Answer> Call(const std::string& path, std::string_view message) const {
    if (path == "/tidegate.worker.v1.WorkerService/Generate") {
      worker::GenerateRequest request;
      request.ParseFromArray(message.data(), static_cast<int>(message.size()));
      const int prompt_tokens = static_cast<int>(request.prompt_token_ids().size() / 4);
      return std::make_unique<Generation>(request.sampling(), prompt_tokens);
    }
    if (path == "/tidegate.inference.v1.InferenceService/Generate") {
      inference::GenerateRequest request;
      request.ParseFromArray(message.data(), static_cast<int>(message.size()));
      return std::make_unique<Generation>(request.sampling(), 0);
    }
    if (path == "/tidegate.worker.v1.WorkerService/WatchLoad") return std::make_unique<LoadReports>();
    if (path == "/tidegate.worker.v1.WorkerService/GetModel") return std::make_unique<Ready>(model_);
    if (path == "/tidegate.worker.v1.WorkerService/GetTokenizer") return std::make_unique<Ready>(tokenizer_);
    return nullptr;
  }

 private:
  std::vector<std::string> model_;
  std::vector<std::string> tokenizer_;
};

class Peer;

struct Call {
  Peer* peer;
  int32_t id;
  std::string path;
  std::string request;
  std::unique_ptr<Answer> answer;
  // Of messages that are made; more than one only when a window was too small for the last.
  std::string unsent;
  // 0 while it stands in no schedule.
  uint64_t due_us = 0;
};

using Due = bench::Schedule<Call>;

// The connection of one client.
class Peer : public bench::Connection {
 public:
  Peer(int descriptor, const Service* service, Due* due) : Connection(descriptor), service_(service), due_(due) {
    nghttp2_session_server_new(&session_, Callbacks(), this);
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, kMaxStreams}};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, 1);
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, bench::kConnectionWindowBytes);
  }

  ~Peer() override {
    for (const auto& [id, call] : calls_) Unschedule(call.get());
  }

  // The next message of `call` is due.
  void Resume(Call* call) {
    call->due_us = 0;
    nghttp2_session_resume_data(session_, call->id);
  }

 private:
  static const nghttp2_session_callbacks* Callbacks() {
    static const nghttp2_session_callbacks* const callbacks = [] {
      nghttp2_session_callbacks* made;
      nghttp2_session_callbacks_new(&made);
      nghttp2_session_callbacks_set_on_begin_headers_callback(made, OnBeginHeaders);
      nghttp2_session_callbacks_set_on_header_callback(made, OnHeader);
      nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, OnData);
      nghttp2_session_callbacks_set_on_frame_recv_callback(made, OnFrame);
      nghttp2_session_callbacks_set_on_stream_close_callback(made, OnClose);
      return made;
    }();
    return callbacks;
  }

  static int OnBeginHeaders(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    auto* peer = static_cast<Peer*>(user);
    auto& call = peer->calls_[frame->hd.stream_id];
    if (call) return 0;  // trailers
    call = std::make_unique<Call>();
    call->peer = peer;
    call->id = frame->hd.stream_id;
    nghttp2_session_set_stream_user_data(session, call->id, call.get());
    return 0;
  }

  static int OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t size, uint8_t, void*) {
    if (std::string_view(reinterpret_cast<const char*>(name), name_size) == ":path") {
      Of(session, frame->hd.stream_id)->path.assign(reinterpret_cast<const char*>(value), size);
    }
    return 0;
  }

  static int OnData(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t size, void*) {
    Of(session, id)->request.append(reinterpret_cast<const char*>(data), size);
    return 0;
  }

  static int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    const bool is_of_call = frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS;
    if (!is_of_call || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
    if (Call* call = Of(session, frame->hd.stream_id)) static_cast<Peer*>(user)->Begin(call);
    return 0;
  }

  static int OnClose(nghttp2_session*, int32_t id, uint32_t, void* user) {
    auto* peer = static_cast<Peer*>(user);
    const auto call = peer->calls_.find(id);
    if (call == peer->calls_.end()) return 0;
    peer->Unschedule(call->second.get());
    peer->calls_.erase(call);
    return 0;
  }

  static Call* Of(nghttp2_session* session, int32_t id) {
    return static_cast<Call*>(nghttp2_session_get_stream_user_data(session, id));
  }

  void Begin(Call* call) {
    std::string_view message = call->request;
    message.remove_prefix(std::min(message.size(), bench::kPrefixBytes));
    call->answer = service_->Call(call->path, message);
    std::string().swap(call->request);
    const nghttp2_nv head[] = {Field(":status", "200"), Field("content-type", "application/grpc"),
                               Field("grpc-status", "12")};
    if (!call->answer) {
      nghttp2_submit_response(session_, call->id, head, 3, nullptr);
      return;
    }
    nghttp2_data_provider data{};
    data.source.ptr = call;
    data.read_callback = OnRoom;
    nghttp2_submit_response(session_, call->id, head, 2, &data);
  }

  // nghttp2 has room for a frame of a call. One message, as gRPC's libraries do it.
  static ssize_t OnRoom(nghttp2_session* session, int32_t id, uint8_t* frame, size_t room, uint32_t* flags,
                        nghttp2_data_source* source, void* user) {
    auto* call = static_cast<Call*>(source->ptr);
    Answer& answer = *call->answer;
    if (call->unsent.empty()) {
      const uint64_t due_us = answer.DueUs();
      if (due_us != 0 && due_us > NowUs()) {
        static_cast<Peer*>(user)->due_->Add(call, due_us);
        call->due_us = due_us;
        return NGHTTP2_ERR_DEFERRED;
      }
      answer.AppendNext(&call->unsent);
    }
    const size_t size = std::min(room, call->unsent.size());
    call->unsent.copy(reinterpret_cast<char*>(frame), size);
    call->unsent.erase(0, size);
    if (call->unsent.empty() && answer.IsOver()) {
      *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
      const nghttp2_nv trailers[] = {Field("grpc-status", "0"), Field("tidegate-finished-bin", answer.finished())};
      nghttp2_submit_trailer(session, id, trailers, answer.finished().empty() ? 1 : 2);
    }
    return static_cast<ssize_t>(size);
  }

  void Unschedule(Call* call) {
    if (call->due_us != 0) due_->Remove(call, call->due_us);
  }

  const Service* const service_;
  Due* const due_;
  std::unordered_map<int32_t, std::unique_ptr<Call>> calls_;
};

class Server {
 public:
  Server(const Service* service, uint16_t port)
      : service_(service),
        listener_(socket(AF_INET, SOCK_STREAM, 0)),
        timer_(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)),
        poll_(epoll_create1(0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 1024) != 0) return;
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    for (const int* descriptor : {&listener_, &timer_}) {
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.ptr = const_cast<int*>(descriptor);
      epoll_ctl(poll_, EPOLL_CTL_ADD, *descriptor, &event);
    }
  }

  // 0 if it could not be had.
  int port() const { return port_; }

  [[noreturn]] void Run() {
    for (;;) {
      std::unordered_set<Peer*> touched, lost;
      SetTimer();
      epoll_event events[512];
      const int count = epoll_wait(poll_, events, 512, -1);
      for (int i = 0; i < count; ++i) {
        if (events[i].data.ptr == &listener_) {
          Accept(&touched);
        } else if (events[i].data.ptr == &timer_) {
          uint64_t expirations;
          if (read(timer_, &expirations, sizeof expirations) > 0) timer_at_us_ = 0;
        } else {
          auto* peer = static_cast<Peer*>(static_cast<bench::Connection*>(events[i].data.ptr));
          touched.insert(peer);
          if (!peer->Read() || events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) lost.insert(peer);
        }
      }
      const uint64_t now_us = NowUs();
      for (auto due = due_.Take(now_us); !due.empty(); due = due_.Take(now_us)) {
        for (Call* call : due) {
          call->peer->Resume(call);
          touched.insert(call->peer);
        }
      }
      for (Peer* peer : touched) {
        if (!peer->Write()) lost.insert(peer);
      }
      for (Peer* peer : lost) delete peer;
    }
  }

 private:
  void SetTimer() {
    const uint64_t at_us = due_.NextUs();
    if (at_us == timer_at_us_) return;
    itimerspec at{};
    at.it_value.tv_sec = static_cast<time_t>(at_us / 1'000'000);
    at.it_value.tv_nsec = static_cast<long>(at_us % 1'000'000 * 1000);
    timerfd_settime(timer_, TFD_TIMER_ABSTIME, &at, nullptr);
    timer_at_us_ = at_us;
  }

  void Accept(std::unordered_set<Peer*>* touched) {
    const int descriptor = accept(listener_, nullptr, nullptr);
    if (descriptor < 0) return;
    auto* peer = new Peer(descriptor, service_, &due_);
    peer->Watch(poll_);
    touched->insert(peer);
  }

  const Service* const service_;
  const int listener_;
  const int timer_;
  const int poll_;
  int port_ = 0;
  uint64_t timer_at_us_ = 0;
  Due due_;
};

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv, {{"port", "0"}, {"model", ""}, {"tokenizer", ""}});
  const Service service(options.Text("model"), options.Text("tokenizer"));
  Server server(&service, static_cast<uint16_t>(options.Number("port")));
  if (server.port() == 0) return 1;
  std::printf("ready on 127.0.0.1:%d\n", server.port());
  std::fflush(stdout);
  server.Run();
}
