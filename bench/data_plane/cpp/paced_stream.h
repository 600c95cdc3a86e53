// A stream whose messages are due one by one. It ends itself, and deletes itself when core has done with it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>

#include "pacer.h"

namespace bench {

template <class Message>
class PacedStream : public grpc::ServerWriteReactor<Message>, public Paced {
 public:
  explicit PacedStream(Pacer* pacer) : pacer_(pacer) {}

  void OnCancel() override {
    is_cancelled_ = true;
    if (pacer_->Remove(this, due_us_)) End(grpc::Status::CANCELLED);
  }

  void OnDone() override { delete this; }

 protected:
  void WaitUntil(uint64_t at_us) {
    due_us_ = at_us;
    pacer_->Schedule(this, at_us);
    // A cancel that came between the two lines above found nothing to remove.
    if (is_cancelled_ && pacer_->Remove(this, at_us)) End(grpc::Status::CANCELLED);
  }

  void End(const grpc::Status& status) {
    if (!is_ended_.exchange(true)) this->Finish(status);
  }

  // One write for the last message and the trailers.
  void EndWith(const Message& last) {
    if (!is_ended_.exchange(true)) this->StartWriteAndFinish(&last, grpc::WriteOptions(), grpc::Status::OK);
  }

  bool IsCancelled() const { return is_cancelled_; }

 private:
  Pacer* pacer_;
  std::atomic<uint64_t> due_us_{0};
  std::atomic<bool> is_cancelled_{false};
  std::atomic<bool> is_ended_{false};
};

}  // namespace bench
