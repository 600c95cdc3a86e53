// gRPC's messages in the bytes of a stream: a flag, four bytes of length, and the message.
#pragma once

#include <google/protobuf/message_lite.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace bench {

constexpr size_t kPrefixBytes = 5;

inline void AppendMessage(const google::protobuf::MessageLite& message, std::string* out) {
  const size_t size = message.ByteSizeLong();
  const char prefix[kPrefixBytes] = {0, static_cast<char>(size >> 24), static_cast<char>(size >> 16),
                                     static_cast<char>(size >> 8), static_cast<char>(size)};
  out->append(prefix, kPrefixBytes);
  message.AppendToString(out);
}

// Cuts a stream into messages. Only what a read has cut in two is copied.
class MessageReader {
 public:
  // Calls `each` with every message that ends in `bytes`.
  template <class Each>
  void Feed(std::string_view bytes, Each each) {
    if (!begun_.empty()) bytes = begun_.append(bytes);
    for (;;) {
      if (bytes.size() < kPrefixBytes) break;
      const auto* prefix = reinterpret_cast<const uint8_t*>(bytes.data());
      const size_t size = size_t{prefix[1]} << 24 | prefix[2] << 16 | prefix[3] << 8 | prefix[4];
      if (bytes.size() - kPrefixBytes < size) break;
      each(bytes.substr(kPrefixBytes, size));
      bytes.remove_prefix(kPrefixBytes + size);
    }
    if (!begun_.empty() || !bytes.empty()) begun_ = std::string(bytes);
  }

 private:
  std::string begun_;
};

}  // namespace bench
