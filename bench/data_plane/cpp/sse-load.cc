// load.cc for gateways that speak HTTP/1.1 and server-sent events: the same options, the same lines. One connection for
// each stream, one thread for all. `max_tokens` and `seed` carry the number of tokens and the microseconds between them.
// Latencies are not measured: a token's text is the gateway's, and has no room for the time.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "clock.h"
#include "options.h"
#include "samples.h"

using bench::NowUs;
using bench::Totals;

namespace {

constexpr uint64_t kPatienceUs = 40'000'000;
constexpr const char* kContent = "\"content\":\"";

struct Connection {
  int descriptor = -1;
  std::string unread;
  uint64_t started_us = 0;
  uint64_t events = 0;
  bool is_running = false;
};

class Load {
 public:
  explicit Load(const bench::Options& options)
      : port_(static_cast<uint16_t>(std::stoi(options.Text("target").substr(options.Text("target").rfind(':') + 1)))),
        requests_(options.Number("requests")),
        seconds_(std::atof(options.Text("seconds").c_str())),
        poll_(epoll_create1(0)),
        connections_(options.Number("streams")) {
    std::ifstream prompt(options.Text("prompt-file"));
    prompt_ = {std::istreambuf_iterator<char>(prompt), {}};
    while (!prompt_.empty() && prompt_.back() == '\n') prompt_.pop_back();
    tail_ = "\"}],\"stream\":true,\"ignore_eos\":true,\"temperature\":0,\"max_tokens\":" + options.Text("tokens") +
            ",\"seed\":" + options.Text("interval-us") + "}";
    model_ = options.Text("model");
  }

  int Run() {
    for (Connection& connection : connections_) {
      if (!Connect(connection)) {
        totals_.Fail(std::strerror(errno));
        return Report("end", 0);
      }
    }
    started_us_ = NowUs();
    for (Connection& connection : connections_) {
      if (IsTimed() || launched_ < requests_) Send(connection);
    }
    return IsTimed() ? RunTimed() : RunRequests();
  }

 private:
  bool IsTimed() const { return requests_ == 0; }

  int RunRequests() {
    while (ended_ < requests_ && totals_.failed_requests == 0) Poll(started_us_ + kPatienceUs);
    return Report("end", (NowUs() - started_us_) / 1e6);
  }

  int RunTimed() {
    while (totals_.first_token_us.size() < connections_.size() && totals_.failed_requests == 0) {
      Poll(started_us_ + kPatienceUs);
    }
    const uint64_t settled_us = NowUs() + 300'000;
    while (NowUs() < settled_us && totals_.failed_requests == 0) Poll(settled_us);
    const uint64_t opened_us = NowUs();
    totals_.messages = 0;
    Totals().Print("open", (opened_us - started_us_) / 1e6);
    const uint64_t end_us = opened_us + static_cast<uint64_t>(seconds_ * 1e6);
    while (NowUs() < end_us && totals_.failed_requests == 0) Poll(end_us);
    Totals at_end;
    at_end.messages = totals_.messages;
    at_end.Print("close", (NowUs() - opened_us) / 1e6);
    return Report("end", (NowUs() - opened_us) / 1e6);
  }

  int Report(const char* event, double wall_s) {
    totals_.Print(event, wall_s);
    return totals_.failed_requests == 0 ? 0 : 1;
  }

  bool Connect(Connection& connection) {
    connection.descriptor = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port_);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(connection.descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return false;
    const int on = 1;
    setsockopt(connection.descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = &connection;
    return epoll_ctl(poll_, EPOLL_CTL_ADD, connection.descriptor, &event) == 0;
  }

  void Send(Connection& connection) {
    const std::string body = "{\"model\":\"" + model_ + "\",\"messages\":[{\"role\":\"user\",\"content\":\"Request " +
                             std::to_string(launched_++) + ". " + prompt_ + tail_;
    const std::string request =
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: " +
        std::to_string(body.size()) + "\r\n\r\n" + body;
    connection.unread.clear();
    connection.events = 0;
    connection.is_running = true;
    connection.started_us = NowUs();
    if (send(connection.descriptor, request.data(), request.size(), MSG_NOSIGNAL) < 0) totals_.Fail("cannot send");
  }

  void Poll(uint64_t until_us) {
    const uint64_t now_us = NowUs();
    if (now_us >= until_us && until_us == started_us_ + kPatienceUs) return totals_.Fail("requests that do not end");
    epoll_event events[512];
    const int timeout_ms = until_us > now_us ? static_cast<int>((until_us - now_us + 999) / 1000) : 0;
    const int count = epoll_wait(poll_, events, 512, timeout_ms);
    for (int i = 0; i < count; ++i) Read(*static_cast<Connection*>(events[i].data.ptr));
  }

  void Read(Connection& connection) {
    char buffer[65536];
    const ssize_t size = recv(connection.descriptor, buffer, sizeof buffer, MSG_DONTWAIT);
    if (size < 0) return;
    if (size == 0) return totals_.Fail("closed: " + connection.unread);
    const uint64_t now_us = NowUs();
    std::string& unread = connection.unread;
    unread.append(buffer, size);
    size_t done = 0;
    bool is_over = false;
    for (;;) {
      const size_t begin = unread.find("data: ", done);
      const size_t end = begin == std::string::npos ? begin : unread.find("\n\n", begin);
      if (end == std::string::npos) break;
      done = end + 2;
      if (unread.compare(begin + 6, 6, "[DONE]") == 0) {
        is_over = true;
      } else if (HasText(unread, begin, end)) {
        if (connection.events++ == 0) totals_.first_token_us.push_back(static_cast<float>(now_us - connection.started_us));
        ++totals_.messages;
      }
    }
    unread.erase(0, done);
    if (connection.events == 0 && unread.compare(0, 9, "HTTP/1.1 ") == 0 && unread.compare(9, 3, "200") != 0) {
      return totals_.Fail(unread);
    }
    if (!is_over || !connection.is_running) return;
    connection.is_running = false;
    ++ended_;
    ++totals_.finished_requests;
    if (launched_ < requests_) Send(connection);
  }

  // The first event names the role, the last the reason: they hold no token.
  static bool HasText(const std::string& unread, size_t begin, size_t end) {
    const size_t content = unread.find(kContent, begin);
    return content < end && unread[content + std::strlen(kContent)] != '"';
  }

  const uint16_t port_;
  const int64_t requests_;
  const double seconds_;
  const int poll_;
  std::vector<Connection> connections_;
  std::string prompt_;
  std::string tail_;
  std::string model_;
  Totals totals_;
  int64_t launched_ = 0;
  int64_t ended_ = 0;
  uint64_t started_us_ = 0;
};

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
                                {"channels", ""}});
  const int code = Load(options).Run();
  std::fflush(stdout);
  _exit(code);
}
