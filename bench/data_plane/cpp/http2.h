// One HTTP/2 connection on a socket that never blocks. nghttp2 knows the protocol, this reads and writes: as much as is
// there at once, since a system call costs more than a token.
#pragma once

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bench {

// What gRPC ends up with where both ends are near; a stream's window is HTTP/2's own 64 KiB.
constexpr int kConnectionWindowBytes = 4 << 20;

// A field of a header or trailer; nghttp2 copies it.
inline nghttp2_nv Field(std::string_view name, std::string_view value) {
  const auto bytes = [](std::string_view text) { return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data())); };
  return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

class Connection {
 public:
  explicit Connection(int descriptor) : descriptor_(descriptor) {
    const int on = 1;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }

  virtual ~Connection() {
    nghttp2_session_del(session_);
    close(descriptor_);
  }

  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Asks `poll` to tell each time when there is something to read or room to write again.
  bool Watch(int poll) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.ptr = this;
    return epoll_ctl(poll, EPOLL_CTL_ADD, descriptor_, &event) == 0;
  }

  // Takes in all that has arrived. False: the connection is lost.
  bool Read() {
    static std::vector<uint8_t> buffer(1 << 18);
    for (;;) {
      const ssize_t size = recv(descriptor_, buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (size < 0) return errno == EAGAIN || errno == EINTR;
      if (size == 0) return false;
      OnRead();
      if (nghttp2_session_mem_recv(session_, buffer.data(), size) < 0) return false;
      if (static_cast<size_t>(size) < buffer.size()) return true;
    }
  }

  // Sends all that is due, as far as windows and the socket have room. False: the connection is lost.
  bool Write() {
    do {
      while (unsent_.size() < kWriteBytes) {
        const uint8_t* frame;
        const ssize_t size = nghttp2_session_mem_send(session_, &frame);
        if (size < 0) return false;
        if (size == 0) break;
        unsent_.append(reinterpret_cast<const char*>(frame), size);
      }
      if (unsent_.empty()) return true;
      const ssize_t size = send(descriptor_, unsent_.data(), unsent_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (size < 0) return errno == EAGAIN || errno == EINTR;
      unsent_.erase(0, size);
    } while (unsent_.empty());
    return true;
  }

 protected:
  // Before what has just been read is taken in.
  virtual void OnRead() {}

  nghttp2_session* session_ = nullptr;

 private:
  static constexpr size_t kWriteBytes = 1 << 16;

  const int descriptor_;
  std::string unsent_;
};

}  // namespace bench
