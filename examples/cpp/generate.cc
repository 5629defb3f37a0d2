// Draws an image with Safelight and shows its progress:
//
//   generate --output red.png "a red circle"
//
// It resumes a stream that breaks, and Ctrl-C cancels the generation.

#include <getopt.h>
#include <grpcpp/grpcpp.h>
#include <openssl/sha.h>
#include <signal.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <google/protobuf/util/message_differencer.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "safelight/v1/text_to_image.grpc.pb.h"

namespace example {

namespace pb = safelight::v1;

using Clock = std::chrono::system_clock;
using Milliseconds = std::chrono::milliseconds;
using Metadata = std::multimap<std::string, std::string>;  // gRPC refuses upper-case keys

constexpr int kLingerSeconds = 10;  // the service runs on for so long after a broken stream
constexpr int kMaxAttempts = 4;  // of a call that has brought nothing
constexpr int kMaxResumes = 10;  // of a stream, without a new event
constexpr Milliseconds kFirstDelay{100};
constexpr Milliseconds kMaxDelay{1000};
constexpr std::chrono::seconds kCancelTimeout{1};

// Returns the details of a type, such as google::rpc::BadRequest.
template <typename T>
std::vector<T> Details(const grpc::Status& status) {
  google::rpc::Status packed;
  packed.ParseFromString(status.error_details());
  std::vector<T> details;
  for (const auto& any : packed.details()) {
    T detail;
    if (any.Is<T>() && any.UnpackTo(&detail)) details.push_back(detail);
  }
  return details;
}

// Returns the reason that the service gives, empty if the failure is not the service's.
std::string Reason(const grpc::Status& status) {
  for (const auto& info : Details<google::rpc::ErrorInfo>(status)) {
    if (info.domain() == "safelight") return info.reason();
  }
  return "";
}

std::string Sha256(const std::string& data) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(data.data()), data.size(), digest);
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (unsigned char byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

// How a call has ended. A service that breaks the contract is a failure, too, although its
// status may be OK.
struct Outcome {
  grpc::Status status;
  std::string broken_rule;

  bool ok() const { return status.ok() && broken_rule.empty(); }
};

// Settings of a call, and its end by the caller. Cancel may come from any thread.
class Call {
 public:
  Call(Metadata metadata, std::optional<Clock::time_point> deadline)
      : metadata_(std::move(metadata)), deadline_(deadline) {}

  // Names the generation of the call, by which proxies choose its replica.
  void Route(const std::string& id) {
    const auto is_allowed = [](unsigned char each) {
      return each < 128 && (std::isalnum(each) || std::strchr("-_.:", each));
    };
    // The service refuses other ids, and a header could not hold them.
    if (!id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), is_allowed)) {
      metadata_.emplace("x-generation-id", id);
    }
  }

  // Prepares an attempt.
  std::unique_ptr<grpc::ClientContext> Begin() {
    auto context = std::make_unique<grpc::ClientContext>();
    for (const auto& [key, value] : metadata_) context->AddMetadata(key, value);
    if (deadline_) context->set_deadline(*deadline_);
    const std::lock_guard lock(mutex_);
    context_ = context.get();
    if (is_cancelled_) context->TryCancel();
    return context;
  }

  // Ends an attempt: its context is about to go.
  void End() {
    const std::lock_guard lock(mutex_);
    context_ = nullptr;
  }

  void Cancel() {
    const std::lock_guard lock(mutex_);
    is_cancelled_ = true;
    if (context_) context_->TryCancel();
    changed_.notify_all();
  }

  bool is_cancelled() const {
    const std::lock_guard lock(mutex_);
    return is_cancelled_;
  }

  // Waits; returns false if the call ends before.
  bool Sleep(Milliseconds delay) {
    if (delay.count() < 0 || (deadline_ && Clock::now() + delay >= *deadline_)) return false;
    std::unique_lock lock(mutex_);
    return !changed_.wait_for(lock, delay, [this] { return is_cancelled_; });
  }

  const Metadata& metadata() const { return metadata_; }

 private:
  Metadata metadata_;
  const std::optional<Clock::time_point> deadline_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  grpc::ClientContext* context_ = nullptr;
  bool is_cancelled_ = false;
};

// Makes a call again while the service is unavailable or the connection breaks. Repeats a stream
// that has begun only if its generation lingers.
class Retries {
 public:
  using Attempt = std::function<Outcome(grpc::ClientContext&)>;

  Retries(Call& call, bool lingers) : call_(call), lingers_(lingers) {}

  Outcome Run(const Attempt& attempt) {
    while (true) {
      ++attempt_count_;
      is_streaming_ = false;
      const auto context = call_.Begin();
      const Outcome outcome = attempt(*context);
      call_.End();
      if (outcome.status.ok() || call_.is_cancelled() || !AllowsAnother(outcome.status) ||
          !call_.Sleep(Delay(*context))) {
        return outcome;
      }
    }
  }

  void Note(bool is_new) {
    has_begun_ = is_streaming_ = true;
    if (is_new) attempt_count_ = 0;
  }

 private:
  bool AllowsAnother(const grpc::Status& status) const {
    const bool is_broken = IsBroken(status);
    if (is_broken && has_begun_) return lingers_ && attempt_count_ < kMaxResumes;
    const bool is_temporary = is_broken || status.error_code() == grpc::StatusCode::UNAVAILABLE;
    return is_temporary && !is_streaming_ && attempt_count_ < kMaxAttempts;
  }

  // Other codes without a reason are refusals by a proxy.
  static bool IsBroken(const grpc::Status& status) {
    switch (status.error_code()) {
      case grpc::StatusCode::UNAVAILABLE:
      case grpc::StatusCode::INTERNAL:
      case grpc::StatusCode::CANCELLED:
      case grpc::StatusCode::ABORTED:
      case grpc::StatusCode::UNKNOWN:
      case grpc::StatusCode::DEADLINE_EXCEEDED:
        return Reason(status).empty();
      default:
        return false;
    }
  }

  // Returns the time that the service asks for, below 0 for never, or else 0.1 s, doubling.
  Milliseconds Delay(const grpc::ClientContext& context) const {
    const auto& trailers = context.GetServerTrailingMetadata();
    const auto pushback = trailers.find("grpc-retry-pushback-ms");
    if (pushback == trailers.end()) {
      return std::min(kFirstDelay * (1 << attempt_count_) / 2, kMaxDelay);
    }
    const std::string text(pushback->second.data(), pushback->second.size());
    char* end = nullptr;
    const long milliseconds = std::strtol(text.c_str(), &end, 10);
    return Milliseconds(text.empty() || *end != '\0' ? -1 : milliseconds);
  }

  Call& call_;
  const bool lingers_;
  bool has_begun_ = false;
  bool is_streaming_ = false;
  int attempt_count_ = 0;  // since the last new event
};

// Gets each event once; an image comes as one event, with its checked bytes. Returns whether to
// go on.
using Handler = std::function<bool(const pb::GenerationEvent& event, const std::string& image)>;

// Puts images together, and leaves out what an earlier stream has brought.
class Assembler {
 public:
  void Restart() {
    header_.reset();
    image_count_ = 0;
    is_repeating_ = true;
  }

  // Takes a message. Returns whether it completes an event, which event() and image() then give.
  bool Feed(const pb::GenerationEvent& event) {
    event_ = event;
    image_.clear();
    if (is_completed_) return Break("an event came after the last");
    switch (event.kind_case()) {
      case pb::GenerationEvent::kAccepted:
        return Accept(event.accepted());
      case pb::GenerationEvent::kQueued:
        return Queue(event.queued().position());
      case pb::GenerationEvent::kProgress:
        return Advance(event.progress().image_index(), event.progress().step());
      case pb::GenerationEvent::kPreview:
        return Advance(event.preview().image_index(), event.preview().step());
      case pb::GenerationEvent::kRestarted:
        return GoBack(event.restarted().restart_count());
      case pb::GenerationEvent::kImage:
        if (header_ || event.image().image_index() != image_count_) {
          return Break("an image came out of turn");
        }
        header_ = event;
        data_.clear();
        return false;
      case pb::GenerationEvent::kChunk:
        return Extend(event.chunk());
      case pb::GenerationEvent::kCompleted:
        if (header_ || !accepted_ || image_count_ != accepted_->image_count()) {
          return Break("images are missing");
        }
        return is_completed_ = true;
      case pb::GenerationEvent::KIND_NOT_SET:  // of a newer contract
        return false;
      default:
        return true;
    }
  }

  const pb::GenerationEvent& event() const { return event_; }
  const std::string& image() const { return image_; }
  const std::string& broken_rule() const { return broken_rule_; }
  bool is_completed() const { return is_completed_; }

 private:
  bool Break(const char* rule) {
    broken_rule_ = rule;
    return false;
  }

  bool Accept(const pb::GenerationAccepted& accepted) {
    using google::protobuf::util::MessageDifferencer;
    if (accepted_ && MessageDifferencer::Equals(accepted, *accepted_)) return false;
    accepted_ = accepted;
    return true;
  }

  bool Queue(int position) {
    const bool is_repeated = is_repeating_ && position == position_;
    position_ = position;
    is_repeating_ = false;
    return !is_repeated;
  }

  bool Advance(int image_index, int step) {
    int& latest = steps_[{event_.kind_case(), image_index}];
    if (step <= latest) return false;
    latest = step;
    return true;
  }

  // Takes a restart, after which steps go back.
  bool GoBack(int restart_count) {
    if (restart_count <= restart_count_) return false;
    restart_count_ = restart_count;
    steps_.clear();
    return true;
  }

  bool Extend(const pb::ImageChunk& chunk) {
    if (!header_ || chunk.image_index() != header_->image().image_index() ||
        chunk.offset_bytes() != static_cast<int64_t>(data_.size())) {
      return Break("a chunk came out of turn");
    }
    data_ += chunk.data();
    const int64_t announced = header_->image().size_bytes();
    if (static_cast<int64_t>(data_.size()) < announced) return false;
    if (static_cast<int64_t>(data_.size()) > announced ||
        Sha256(data_) != header_->image().sha256()) {
      return Break("an image has other bytes than announced");
    }
    event_ = *std::exchange(header_, std::nullopt);
    image_ = data_;
    ++image_count_;
    const auto [before, is_new] =
        digests_.emplace(event_.image().image_index(), event_.image().sha256());
    if (before->second != event_.image().sha256()) {
      return Break("an image is not the one from before");
    }
    return is_new;
  }

  pb::GenerationEvent event_;
  std::string image_;
  std::string broken_rule_;
  std::optional<pb::GenerationAccepted> accepted_;
  int position_ = 0;
  bool is_repeating_ = false;                 // whether the latest position may come again
  std::map<std::pair<int, int>, int> steps_;  // latest step by kind of event and image
  int restart_count_ = 0;
  std::map<int, std::string> digests_;        // SHA-256 of the images so far
  std::optional<pb::GenerationEvent> header_;
  std::string data_;
  int image_count_ = 0;  // in this stream
  bool is_completed_ = false;
};

// Passes the events of Generate or WatchGeneration on, and opens the stream again where it breaks.
template <typename Response>
Outcome Follow(
    Call& call, bool lingers,
    std::function<std::unique_ptr<grpc::ClientReader<Response>>(grpc::ClientContext&)> open,
    const Handler& handle) {
  Assembler assembler;
  Retries retries(call, lingers);
  return retries.Run([&](grpc::ClientContext& context) -> Outcome {
    assembler.Restart();
    const auto reader = open(context);
    Response response;
    while (reader->Read(&response)) {
      const bool is_event = assembler.Feed(response.event());
      retries.Note(is_event);
      if (is_event && !handle(assembler.event(), assembler.image())) call.Cancel();
      if (!assembler.broken_rule().empty()) return {grpc::Status::OK, assembler.broken_rule()};
      if (call.is_cancelled()) return {grpc::Status::CANCELLED, ""};
    }
    const grpc::Status status = reader->Finish();
    if (assembler.is_completed()) return {};  // even if the stream broke then
    return {status, status.ok() ? "the stream ended before the generation" : ""};
  });
}

std::string NewId() {
  std::random_device random;
  std::ostringstream id;
  id << std::hex;
  for (int i = 0; i < 4; ++i) id << (0x80000000u | random());
  return id.str();
}

// Ends a generation for good: it would linger otherwise.
void CancelGeneration(pb::TextToImageService::Stub& stub, const Call& call, const std::string& id) {
  pb::CancelGenerationRequest request;
  request.set_generation_id(id);
  pb::CancelGenerationResponse response;
  const auto context = Call(call.metadata(), Clock::now() + kCancelTimeout).Begin();
  // A failure changes nothing: the service cancels the generation after its linger.
  (void)stub.CancelGeneration(context.get(), request, &response);
}

// Runs a generation to its end. If it fails, or the caller leaves, it is cancelled.
Outcome Generate(pb::TextToImageService::Stub& stub, Call& call, pb::GenerateRequest request,
                 const Handler& handle) {
  if (request.generation_id().empty()) request.set_generation_id(NewId());
  if (!request.has_linger()) request.mutable_linger()->set_seconds(kLingerSeconds);
  call.Route(request.generation_id());
  const bool lingers = request.linger().seconds() > 0 || request.linger().nanos() > 0;
  const Outcome outcome = Follow<pb::GenerateResponse>(
      call, lingers,
      [&](grpc::ClientContext& context) { return stub.Generate(&context, request); }, handle);
  if (!outcome.ok() && lingers && Reason(outcome.status).empty()) {
    CancelGeneration(stub, call, request.generation_id());
  }
  return outcome;
}

std::shared_ptr<grpc::Channel> Connect(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // class Retries decides
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

void ShowProgress(const pb::StepProgress& progress) {
  constexpr int kWidth = 30;
  const int filled = kWidth * progress.step() / progress.step_count();
  std::cerr << "\r[" << std::string(filled, '#') << std::string(kWidth - filled, '.') << "] step "
            << progress.step() << " of " << progress.step_count() << std::flush;
}

// Prints each field that breaks its rule, or else the message of the service.
void Explain(const Outcome& outcome) {
  if (!outcome.broken_rule.empty()) {
    std::cerr << outcome.broken_rule << "\n";
  } else if (const auto bad = Details<google::rpc::BadRequest>(outcome.status); !bad.empty()) {
    for (const auto& violation : bad.front().field_violations()) {
      std::cerr << violation.field() << ": " << violation.description() << "\n";
    }
  } else {
    std::cerr << outcome.status.error_message() << "\n";
  }
}

// Cancels the call on Ctrl-C. SIGINT must be blocked in all threads.
void CancelOnInterrupt(Call& call) {
  std::thread([&call] {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    int signal = 0;
    sigwait(&signals, &signal);
    call.Cancel();
  }).detach();
}

}  // namespace example

int main(int argc, char** argv) {
  using namespace example;
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before gRPC starts threads

  std::string target = "127.0.0.1:50051", output = "image.png";
  pb::GenerateRequest request;
  const option options[] = {{"target", required_argument, nullptr, 't'},
                            {"output", required_argument, nullptr, 'o'},
                            {"width", required_argument, nullptr, 'w'},
                            {"height", required_argument, nullptr, 'h'},
                            {"steps", required_argument, nullptr, 's'},
                            {}};
  auto& parameters = *request.mutable_parameters();
  for (int name; (name = getopt_long(argc, argv, "", options, nullptr)) != -1;) {
    switch (name) {
      case 't': target = optarg; break;
      case 'o': output = optarg; break;
      case 'w': parameters.set_width(std::atoi(optarg)); break;
      case 'h': parameters.set_height(std::atoi(optarg)); break;
      case 's': parameters.set_num_inference_steps(std::atoi(optarg)); break;
      default: return 2;
    }
  }
  if (optind < argc) request.set_inputs(argv[optind]);

  Metadata metadata;
  if (const char* token = std::getenv("SAFELIGHT_TOKEN")) {
    metadata.emplace("authorization", std::string("Bearer ") + token);
  }
  static Call call(metadata, std::nullopt);  // static, because the thread below outlives main
  CancelOnInterrupt(call);
  const auto stub = pb::TextToImageService::NewStub(Connect(target));
  const Outcome outcome = Generate(
      *stub, call, request, [&](const pb::GenerationEvent& event, const std::string& data) {
        if (event.has_progress()) ShowProgress(event.progress());
        if (event.has_image()) {
          const auto& image = event.image();
          std::cerr << "\n" << output << ": " << image.width() << " x " << image.height()
                    << ", seed " << image.seed() << "\n";
          std::ofstream(output, std::ios::binary) << data;
        }
        return true;
      });
  if (call.is_cancelled()) {
    std::cerr << "\ncancelled\n";
    return 130;
  }
  if (!outcome.ok()) {
    Explain(outcome);
    return 1;
  }
  return 0;
}
