import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.MessageOrBuilder;
import com.google.protobuf.util.Durations;
import com.google.protobuf.util.JsonFormat;
import com.google.rpc.BadRequest;
import com.google.rpc.RetryInfo;
import io.github.safelightproject.safelight.v1.CancelGenerationRequest;
import io.github.safelightproject.safelight.v1.GenerateRequest;
import io.github.safelightproject.safelight.v1.GetModelRequest;
import io.github.safelightproject.safelight.v1.ListModelsRequest;
import io.github.safelightproject.safelight.v1.TextToImageServiceGrpc;
import io.github.safelightproject.safelight.v1.TextToImageServiceGrpc.TextToImageServiceBlockingStub;
import io.github.safelightproject.safelight.v1.WatchGenerationRequest;
import io.github.safelightproject.safelight.v1.WatchGenerationResponse;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;

/** The runner of the conformance kit (clients/conformance). */
final class Runner {
  private static final ScheduledExecutorService DEADLINES =
      Executors.newSingleThreadScheduledExecutor();
  private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);
  private static final JsonFormat.Printer PRINTER =
      JsonFormat.printer().omittingInsignificantWhitespace();

  /** The caller leaves the generation early. */
  private static final class LeftException extends RuntimeException {
    private static final long serialVersionUID = 1;
  }

  public static void main(String[] arguments) throws Exception {
    BufferedReader jobs =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = jobs.readLine(); line != null; line = jobs.readLine()) {
      run(JsonParser.parseString(line).getAsJsonObject());
      OUT.println();
    }
    DEADLINES.shutdownNow();
  }

  private static void run(JsonObject job) throws IOException {
    ManagedChannel channel = Generate.connect(job.get("target").getAsString());
    TextToImageServiceBlockingStub stub =
        TextToImageServiceGrpc.newBlockingStub(channel)
            .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata(job)));
    Context.CancellableContext context =
        job.has("timeout_ms")
            ? Context.ROOT.withDeadlineAfter(
                (long) (1e3 * job.get("timeout_ms").getAsDouble()),
                TimeUnit.MICROSECONDS,
                DEADLINES)
            : Context.ROOT.withCancellation();
    try {
      call(job, stub, context);
    } catch (LeftException e) {
      // The kit expects nothing more.
    } catch (StatusRuntimeException e) {
      printError(failure(e));
    } catch (Generate.ProtocolException e) {
      printError(new Gson().toJsonTree(Map.of("code", "PROTOCOL", "message", e.getMessage())));
    } finally {
      context.cancel(null);
      channel.shutdownNow();
    }
  }

  private static Metadata metadata(JsonObject job) {
    Metadata metadata = new Metadata();
    if (job.has("token")) {
      metadata.put(Generate.key("authorization"), "Bearer " + job.get("token").getAsString());
    }
    if (job.has("metadata")) {
      for (Map.Entry<String, JsonElement> entry : job.getAsJsonObject("metadata").entrySet()) {
        metadata.put(Generate.key(entry.getKey()), entry.getValue().getAsString());
      }
    }
    return metadata;
  }

  private static void call(JsonObject job, TextToImageServiceBlockingStub stub, Context context)
      throws IOException {
    Generate.Client client = new Generate.Client(stub);
    Generate.Retries retries = new Generate.Retries(context, false);
    switch (job.get("method").getAsString()) {
      case "Generate" -> {
        GenerateRequest.Builder request = GenerateRequest.newBuilder();
        client.generate(context, parse(job, request).build(), printer(job));
      }
      case "WatchGeneration" -> {
        WatchGenerationRequest request = parse(job, WatchGenerationRequest.newBuilder()).build();
        client.follow(
            context,
            true,
            open ->
                Generate.Client.events(
                    Generate.route(open, request.getGenerationId()).watchGeneration(request),
                    WatchGenerationResponse::getEvent),
            printer(job));
      }
      case "CancelGeneration" -> {
        CancelGenerationRequest request = parse(job, CancelGenerationRequest.newBuilder()).build();
        TextToImageServiceBlockingStub routed = Generate.route(stub, request.getGenerationId());
        OUT.println(PRINTER.print(retries.run(attempt -> routed.cancelGeneration(request))));
      }
      case "ListModels" -> {
        ListModelsRequest request = parse(job, ListModelsRequest.newBuilder()).build();
        OUT.println(PRINTER.print(retries.run(attempt -> stub.listModels(request))));
      }
      case "GetModel" -> {
        GetModelRequest request = parse(job, GetModelRequest.newBuilder()).build();
        OUT.println(PRINTER.print(retries.run(attempt -> stub.getModel(request))));
      }
      default -> throw new IllegalArgumentException(job.toString());
    }
  }

  private static <B extends Message.Builder> B parse(JsonObject job, B builder)
      throws InvalidProtocolBufferException {
    JsonFormat.parser().merge(job.get("request").toString(), builder);
    return builder;
  }

  private static Generate.Handler printer(JsonObject job) {
    int[] count = {job.has("leave_after") ? job.get("leave_after").getAsInt() : 0};
    return (event, data) -> {
      JsonObject line = json(event);
      if (event.hasImage()) {
        line.addProperty("received", Generate.sha256(data));
      }
      OUT.println(line);
      count[0]--;
      if (count[0] == 0) {
        throw new LeftException();
      }
    };
  }

  private static JsonObject json(MessageOrBuilder message) throws InvalidProtocolBufferException {
    return JsonParser.parseString(PRINTER.print(message)).getAsJsonObject();
  }

  private static JsonObject failure(StatusRuntimeException e)
      throws InvalidProtocolBufferException {
    JsonObject failure = new JsonObject();
    failure.addProperty("code", e.getStatus().getCode().name());
    failure.addProperty("message", e.getStatus().getDescription());
    Generate.reason(e).ifPresent(reason -> failure.addProperty("reason", reason));
    for (RetryInfo info : Generate.details(e, RetryInfo.class)) {
      failure.addProperty("retry_after_ms", Durations.toMillis(info.getRetryDelay()));
    }
    JsonArray violations = new JsonArray();
    for (BadRequest bad : Generate.details(e, BadRequest.class)) {
      for (BadRequest.FieldViolation violation : bad.getFieldViolationsList()) {
        violations.add(json(violation));
      }
    }
    if (!violations.isEmpty()) {
      failure.add("violations", violations);
    }
    return failure;
  }

  private static void printError(JsonElement failure) {
    JsonObject line = new JsonObject();
    line.add("error", failure);
    OUT.println(line);
  }
}
