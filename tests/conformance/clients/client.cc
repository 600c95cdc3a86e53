// Makes the calls that stdin asks for, one JSON object a line, and prints how each went: gRPC C++.
// Options: ADDRESS [FILE with the certificate authority]. Bytes are base64.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

using grpc::ByteBuffer;
using nlohmann::json;

namespace {

constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::string Encode(const std::string& bytes) {
  std::string text;
  uint32_t bits = 0;
  int count = 0;
  for (const unsigned char byte : bytes) {
    bits = bits << 8 | byte;
    for (count += 8; count >= 6; count -= 6) text += kAlphabet[bits >> (count - 6) & 63];
  }
  if (count > 0) text += kAlphabet[bits << (6 - count) & 63];
  while (text.size() % 4) text += '=';
  return text;
}

std::string Decode(const std::string& text) {
  static const std::string alphabet = kAlphabet;
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char character : text) {
    if (character == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(alphabet.find(character));
    count += 6;
    if (count >= 8) bytes += static_cast<char>(bits >> (count -= 8) & 255);
  }
  return bytes;
}

bool IsBinary(const std::string& key) { return key.size() > 4 && key.compare(key.size() - 4, 4, "-bin") == 0; }

json Pairs(const std::multimap<grpc::string_ref, grpc::string_ref>& metadata) {
  json pairs = json::array();
  for (const auto& [name, content] : metadata) {
    const std::string key(name.data(), name.size()), value(content.data(), content.size());
    pairs.push_back({key, IsBinary(key) ? Encode(value) : value});
  }
  return pairs;
}

std::string Bytes(const ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (buffer.Dump(&slices).ok()) {
    for (const auto& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

class Call;
std::mutex mutex;
std::map<int, Call*> calls;

class Call : public grpc::ClientBidiReactor<ByteBuffer, ByteBuffer> {
 public:
  Call(grpc::GenericStub* stub, const json& asked)
      : id_(asked["id"]),
        pause_s_(asked["pause_s"]),
        cancel_after_(asked["cancel_after"].is_null() ? 0 : int(asked["cancel_after"])) {
    for (const std::string request : asked["requests"]) {
      const grpc::Slice slice(Decode(request));
      requests_.emplace_back(&slice, 1);
    }
    for (const auto& pair : asked["metadata"]) {
      const std::string key = pair[0], value = pair[1];
      context_.AddMetadata(key, IsBinary(key) ? Decode(value) : value);
    }
    if (!asked["timeout_s"].is_null()) {
      const auto timeout = std::chrono::duration<double>(double(asked["timeout_s"]));
      context_.set_deadline(std::chrono::system_clock::now() +
                            std::chrono::duration_cast<std::chrono::system_clock::duration>(timeout));
    }
    stub->PrepareBidiStreamingCall(&context_, asked["method"], {}, this);
    Write();
    StartRead(&response_);
    StartCall();
  }

  void Cancel() { context_.TryCancel(); }

  void OnReadInitialMetadataDone(bool ok) override { has_initial_ = ok; }

  void OnWriteDone(bool ok) override {
    if (ok) Write();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    received_.push_back(Encode(Bytes(response_)));
    if (static_cast<int>(received_.size()) == cancel_after_) Cancel();
    std::this_thread::sleep_for(std::chrono::duration<double>(pause_s_));
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    const json outcome = {{"id", id_},
                          {"code", static_cast<int>(status.error_code())},
                          {"message", status.error_message()},
                          {"received", received_},
                          {"initial", has_initial_ ? Pairs(context_.GetServerInitialMetadata()) : json::array()},
                          {"trailing", Pairs(context_.GetServerTrailingMetadata())}};
    const std::lock_guard<std::mutex> lock(mutex);
    calls.erase(id_);
    std::cout << outcome.dump() << std::endl;
    delete this;
  }

 private:
  void Write() {
    if (next_ < requests_.size()) {
      const bool is_last = next_ + 1 == requests_.size();
      StartWrite(&requests_[next_++], is_last ? grpc::WriteOptions().set_last_message() : grpc::WriteOptions());
    } else if (requests_.empty()) {
      StartWritesDone();
    }
  }

  const int id_;
  const double pause_s_;
  const int cancel_after_;
  grpc::ClientContext context_;
  std::vector<ByteBuffer> requests_;
  size_t next_ = 0;
  ByteBuffer response_;
  std::vector<std::string> received_;
  bool has_initial_ = false;
};

std::shared_ptr<grpc::ChannelCredentials> Credentials(int argc, char** argv) {
  if (argc < 3) return grpc::InsecureChannelCredentials();
  std::ifstream file(argv[2]);
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = {std::istreambuf_iterator<char>(file), {}};
  return grpc::SslCredentials(options);
}

}  // namespace

int main(int argc, char** argv) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  grpc::GenericStub stub(grpc::CreateCustomChannel(argv[1], Credentials(argc, argv), arguments));
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    const json asked = json::parse(line);
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = calls.find(asked["id"]);
    if (!asked.contains("cancel")) {
      calls[asked["id"]] = new Call(&stub, asked);
    } else if (found != calls.end()) {
      found->second->Cancel();
    }
  }
  std::_Exit(0);
}
