// The runner of the conformance kit (clients/conformance). It shares the code of the example,
// except its main.

#define main ExampleMain
#include "generate.cc"
#undef main

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>

#include "google/rpc/code.pb.h"

namespace example {

using google::protobuf::Message;
using google::protobuf::Struct;
using google::protobuf::util::JsonStringToMessage;
using google::protobuf::util::MessageToJsonString;

std::string ToJson(const Message& message) {
  std::string text;
  (void)MessageToJsonString(message, &text);
  return text;
}

Struct ToStruct(const Message& message) {
  Struct fields;
  (void)JsonStringToMessage(ToJson(message), &fields);
  return fields;
}

// One line of standard input.
class Job {
 public:
  explicit Job(const std::string& line) { (void)JsonStringToMessage(line, &fields_); }

  void Run() {
    const auto stub = pb::TextToImageService::NewStub(Connect(Text("target")));
    std::optional<Clock::time_point> deadline;
    if (Has("timeout_ms")) {
      deadline = Clock::now() + Milliseconds(static_cast<int64_t>(Number("timeout_ms")));
    }
    Call call(metadata(), deadline);
    int left = Has("leave_after") ? static_cast<int>(Number("leave_after")) : -1;
    bool has_left = false;
    const Handler print = [&](const pb::GenerationEvent& event, const std::string& data) {
      Struct line = ToStruct(event);
      if (event.has_image()) (*line.mutable_fields())["received"].set_string_value(Sha256(data));
      std::cout << ToJson(line) << std::endl;
      has_left = --left == 0;
      return !has_left;
    };
    const std::string method = Text("method");
    Outcome outcome;
    if (method == "Generate") {
      outcome = Generate(*stub, call, Request<pb::GenerateRequest>(), print);
    } else if (method == "WatchGeneration") {
      const auto request = Request<pb::WatchGenerationRequest>();
      call.Route(request.generation_id());
      outcome = Follow<pb::WatchGenerationResponse>(
          call, true,
          [&](grpc::ClientContext& context) { return stub->WatchGeneration(&context, request); },
          print);
    } else if (method == "CancelGeneration") {
      call.Route(Request<pb::CancelGenerationRequest>().generation_id());
      outcome = CallOnce<pb::CancelGenerationRequest, pb::CancelGenerationResponse>(
          *stub, call, &pb::TextToImageService::Stub::CancelGeneration);
    } else if (method == "ListModels") {
      outcome = CallOnce<pb::ListModelsRequest, pb::ListModelsResponse>(
          *stub, call, &pb::TextToImageService::Stub::ListModels);
    } else {
      outcome = CallOnce<pb::GetModelRequest, pb::GetModelResponse>(
          *stub, call, &pb::TextToImageService::Stub::GetModel);
    }
    if (!outcome.ok() && !has_left) PrintFailure(outcome);
  }

 private:
  bool Has(const std::string& key) const { return fields_.fields().contains(key); }
  const std::string& Text(const std::string& key) const {
    return fields_.fields().at(key).string_value();
  }
  double Number(const std::string& key) const { return fields_.fields().at(key).number_value(); }

  template <typename T>
  T Request() const {
    T request;
    (void)JsonStringToMessage(ToJson(fields_.fields().at("request")), &request);
    return request;
  }

  Metadata metadata() const {
    Metadata metadata;
    if (Has("token")) metadata.emplace("authorization", "Bearer " + Text("token"));
    if (Has("metadata")) {
      for (const auto& [key, value] : fields_.fields().at("metadata").struct_value().fields()) {
        metadata.emplace(key, value.string_value());
      }
    }
    return metadata;
  }

  // Makes a call without a stream, and prints its response.
  template <typename RequestType, typename Response>
  Outcome CallOnce(pb::TextToImageService::Stub& stub, Call& call,
                   grpc::Status (pb::TextToImageService::Stub::*method)(grpc::ClientContext*,
                                                                        const RequestType&,
                                                                        Response*)) {
    const auto request = Request<RequestType>();
    Response response;
    const Outcome outcome = Retries(call, false).Run([&](grpc::ClientContext& context) -> Outcome {
      return {(stub.*method)(&context, request, &response), ""};
    });
    if (outcome.ok()) std::cout << ToJson(response) << std::endl;
    return outcome;
  }

  static void PrintFailure(const Outcome& outcome) {
    const grpc::Status& status = outcome.status;
    Struct line;
    auto& failure = *(*line.mutable_fields())["error"].mutable_struct_value()->mutable_fields();
    const auto set = [&](const char* key, const std::string& value) {
      failure[key].set_string_value(value);
    };
    if (outcome.broken_rule.empty()) {
      set("code", google::rpc::Code_Name(static_cast<google::rpc::Code>(status.error_code())));
      set("message", status.error_message());
    } else {
      set("code", "PROTOCOL");
      set("message", outcome.broken_rule);
    }
    if (!Reason(status).empty()) set("reason", Reason(status));
    for (const auto& bad : Details<google::rpc::BadRequest>(status)) {
      failure["violations"] = ToStruct(bad).fields().at("fieldViolations");
    }
    for (const auto& info : Details<google::rpc::RetryInfo>(status)) {
      failure["retry_after_ms"].set_number_value(
          google::protobuf::util::TimeUtil::DurationToMilliseconds(info.retry_delay()));
    }
    std::cout << ToJson(line) << std::endl;
  }

  Struct fields_;
};

}  // namespace example

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    example::Job(line).Run();
    std::cout << std::endl;
  }
}
