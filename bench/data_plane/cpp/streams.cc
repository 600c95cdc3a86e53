// Open streams of the public API, and nothing but the flow of their tokens: --streams streams over --channels
// connections are opened and kept open. "open" is printed when each has its first token, "close" --seconds seconds
// later, then they are cancelled, and "end" is printed. Counts and latencies are of the time between.
//
// One thread, and HTTP/2 by nghttp2: a token costs it a microsecond, gRPC's library ten and more, and two cores are to
// have room for what is measured. What has arrived is read at once, and that is when all of it arrived.
#include <arpa/inet.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "clock.h"
#include "http2.h"
#include "messages.h"
#include "options.h"
#include "samples.h"
#include "tidegate/inference/v1/inference_service.pb.h"

namespace inference = tidegate::inference::v1;

using bench::Field;
using bench::NowUs;
using bench::Totals;

namespace {

constexpr uint64_t kPatienceUs = 40'000'000;
constexpr uint64_t kSettleUs = 300'000;
// Streams that wait for their first token at one time, while many are opened: a burst is not what is measured.
constexpr int kOpening = 200;

// What all streams say and find.
struct Tally {
  Totals totals;
  int opened = 0;
  bool is_measuring = false;
  uint64_t measured_from_us = 0;
  bool is_closing = false;
};

struct Stream {
  std::string request;
  uint64_t started_us = 0;
  bench::MessageReader reader;
  int next_id = 0;
  std::string status;
};

class Channel : public bench::Connection {
 public:
  Channel(int descriptor, Tally* tally) : Connection(descriptor), tally_(tally) {
    nghttp2_session_client_new(&session_, Callbacks(), this);
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, 1);
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, bench::kConnectionWindowBytes);
  }

  void Open(std::string request) {
    Stream* stream = streams_.emplace_back(std::make_unique<Stream>()).get();
    stream->request = std::move(request);
    stream->started_us = NowUs();
    const nghttp2_nv head[] = {Field(":method", "POST"),
                               Field(":scheme", "http"),
                               Field(":path", "/tidegate.inference.v1.InferenceService/Generate"),
                               Field(":authority", "localhost"),
                               Field("te", "trailers"),
                               Field("content-type", "application/grpc"),
                               Field("user-agent", "tidegate-bench"),
                               Field("grpc-accept-encoding", "identity")};
    nghttp2_data_provider body{};
    body.source.ptr = stream;
    body.read_callback = OnRoom;
    const int32_t id = nghttp2_submit_request(session_, nullptr, head, std::size(head), &body, stream);
    if (id < 0) return tally_->totals.Fail("a stream that cannot be opened");
    ids_.insert(id);
  }

  void Cancel() {
    for (const int32_t id : ids_) nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
  }

  bool IsLost() const { return is_lost_; }

  // With all of its streams.
  void Lose() {
    is_lost_ = true;
    for (size_t i = 0; i < ids_.size(); ++i) Fail("connection lost");
  }

 private:
  static const nghttp2_session_callbacks* Callbacks() {
    static const nghttp2_session_callbacks* const callbacks = [] {
      nghttp2_session_callbacks* made;
      nghttp2_session_callbacks_new(&made);
      nghttp2_session_callbacks_set_on_header_callback(made, OnHeader);
      nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, OnData);
      nghttp2_session_callbacks_set_on_stream_close_callback(made, OnClose);
      return made;
    }();
    return callbacks;
  }

  void OnRead() override { now_us_ = NowUs(); }

  static ssize_t OnRoom(nghttp2_session*, int32_t, uint8_t* frame, size_t room, uint32_t* flags,
                        nghttp2_data_source* source, void*) {
    std::string& request = static_cast<Stream*>(source->ptr)->request;
    const size_t size = std::min(room, request.size());
    request.copy(reinterpret_cast<char*>(frame), size);
    request.erase(0, size);
    if (request.empty()) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(size);
  }

  static int OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t size, uint8_t, void*) {
    const std::string_view field(reinterpret_cast<const char*>(name), name_size);
    if (field != ":status" && field != "grpc-status" && field != "grpc-message") return 0;
    if (auto* stream = Of(session, frame->hd.stream_id)) {
      stream->status.append(field).append(" ").append(reinterpret_cast<const char*>(value), size).append(" ");
    }
    return 0;
  }

  static int OnData(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t size, void* user) {
    auto* channel = static_cast<Channel*>(user);
    auto* stream = Of(session, id);
    stream->reader.Feed({reinterpret_cast<const char*>(data), size},
                        [&](std::string_view message) { channel->Take(stream, message); });
    return 0;
  }

  static int OnClose(nghttp2_session* session, int32_t id, uint32_t, void* user) {
    auto* channel = static_cast<Channel*>(user);
    channel->ids_.erase(id);
    channel->Fail("ended: " + Of(session, id)->status);
    return 0;
  }

  static Stream* Of(nghttp2_session* session, int32_t id) {
    return static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, id));
  }

  // Whatever happens to streams that are being cancelled is well: Envoy hangs up on whoever cancels many young ones.
  void Fail(const std::string& error) {
    if (!tally_->is_closing) tally_->totals.Fail(error);
  }

  void Take(Stream* stream, std::string_view message) {
    static inference::GenerateResponse response;
    Totals& totals = tally_->totals;
    if (!response.ParseFromArray(message.data(), static_cast<int>(message.size()))) totals.Fail("not a response");
    ++totals.messages;
    if (!response.has_delta()) return;
    if (stream->next_id == 0) {
      ++tally_->opened;
      totals.first_token_us.push_back(static_cast<float>(now_us_ - stream->started_us));
    }
    const auto& delta = response.delta();
    for (const int id : delta.token_ids()) {
      if (id != stream->next_id++) totals.Fail("a token is missing");
    }
    const uint64_t sent_us = bench::ReadStamp(delta.text(0));
    if (tally_->is_measuring && sent_us >= tally_->measured_from_us) {
      totals.latency_us.push_back(static_cast<float>(now_us_ - sent_us));
    }
  }

  Tally* const tally_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::unordered_set<int32_t> ids_;
  bool is_lost_ = false;
  // When the bytes that are being taken in were read.
  uint64_t now_us_ = 0;
};

class Load {
 public:
  explicit Load(const bench::Options& options)
      : streams_(static_cast<int>(options.Number("streams"))),
        seconds_(std::atof(options.Text("seconds").c_str())),
        poll_(epoll_create1(0)) {
    std::ifstream prompt(options.Text("prompt-file"));
    prompt_ = {std::istreambuf_iterator<char>(prompt), {}};
    request_.set_model(options.Text("model"));
    request_.mutable_chat()->add_messages()->set_role(inference::CHAT_ROLE_USER);
    request_.mutable_sampling()->set_max_output_tokens(static_cast<int>(options.Number("tokens")));
    request_.mutable_sampling()->set_seed(options.Number("interval-us"));
    for (int i = 0; i < options.Number("channels"); ++i) Connect(options.Text("target"));
  }

  int Run() {
    const uint64_t started_us = NowUs();
    while (tally_.opened < streams_ && IsWell()) {
      while (launched_ < streams_ && launched_ - tally_.opened < kOpening) Open();
      if (NowUs() > started_us + kPatienceUs) {
        totals().Fail(std::to_string(tally_.opened) + " streams opened");
      }
      Poll(NowUs() + kSettleUs);
    }
    if (IsWell()) {
      // Let the burst of openings drain before anything is measured.
      PollUntil(NowUs() + kSettleUs);
      Totals().Print("open", (NowUs() - started_us) / 1e6);
    }
    tally_.measured_from_us = NowUs();
    tally_.is_measuring = true;
    totals().messages = 0;
    if (IsWell()) PollUntil(tally_.measured_from_us + static_cast<uint64_t>(seconds_ * 1e6));
    const double wall_s = (NowUs() - tally_.measured_from_us) / 1e6;
    tally_.is_measuring = false;
    Totals at_end;
    at_end.messages = totals().messages;
    at_end.Print("close", wall_s);
    Close();
    totals().messages = at_end.messages;
    totals().finished_requests = tally_.opened - std::min<uint64_t>(tally_.opened, totals().failed_requests);
    totals().Print("end", wall_s);
    return IsWell() ? 0 : 1;
  }

 private:
  Totals& totals() { return tally_.totals; }
  bool IsWell() { return totals().failed_requests == 0; }

  void Connect(const std::string& target) {
    const size_t colon = target.rfind(':');
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(std::atoi(target.c_str() + colon + 1)));
    inet_pton(AF_INET, target.substr(0, colon).c_str(), &address.sin_addr);
    const int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      totals().Fail(std::string("no connection: ") + std::strerror(errno));
    }
    channels_.push_back(std::make_unique<Channel>(descriptor, &tally_));
    channels_.back()->Watch(poll_);
  }

  void Open() {
    const int number = launched_++;
    request_.mutable_chat()->mutable_messages(0)->set_content("Request " + std::to_string(number) + ". " + prompt_);
    std::string framed;
    bench::AppendMessage(request_, &framed);
    channels_[number % channels_.size()]->Open(std::move(framed));
  }

  void PollUntil(uint64_t until_us) {
    while (NowUs() < until_us) Poll(until_us);
  }

  // Writes what there is to write, waits for something to read, and reads it.
  void Poll(uint64_t until_us) {
    for (const auto& channel : channels_) {
      if (!channel->IsLost() && !channel->Write()) channel->Lose();
    }
    const uint64_t now_us = NowUs();
    const int timeout_ms = until_us > now_us ? static_cast<int>((until_us - now_us + 999) / 1000) : 0;
    epoll_event events[64];
    const int count = epoll_wait(poll_, events, std::size(events), timeout_ms);
    for (int i = 0; i < count; ++i) {
      auto* channel = static_cast<Channel*>(static_cast<bench::Connection*>(events[i].data.ptr));
      if (!channel->IsLost() && !channel->Read()) channel->Lose();
    }
  }

  void Close() {
    tally_.is_closing = true;
    for (const auto& channel : channels_) channel->Cancel();
    PollUntil(NowUs() + kSettleUs);
  }

  const int streams_;
  const double seconds_;
  const int poll_;
  std::string prompt_;
  inference::GenerateRequest request_;
  Tally tally_;
  std::vector<std::unique_ptr<Channel>> channels_;
  int launched_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv,
                               {{"target", ""},
                                {"model", "bench"},
                                {"prompt-file", ""},
                                {"streams", "1"},
                                {"seconds", "0"},
                                {"tokens", "1"},
                                {"interval-us", "0"},
                                {"channels", "1"}});
  return Load(options).Run();
}
