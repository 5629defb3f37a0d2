import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.Durations;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import io.github.safelightproject.safelight.v1.CancelGenerationRequest;
import io.github.safelightproject.safelight.v1.GenerateRequest;
import io.github.safelightproject.safelight.v1.GenerateResponse;
import io.github.safelightproject.safelight.v1.GenerationAccepted;
import io.github.safelightproject.safelight.v1.GenerationEvent;
import io.github.safelightproject.safelight.v1.ImageChunk;
import io.github.safelightproject.safelight.v1.ImageHeader;
import io.github.safelightproject.safelight.v1.StepProgress;
import io.github.safelightproject.safelight.v1.TextToImageParameters;
import io.github.safelightproject.safelight.v1.TextToImageServiceGrpc;
import io.github.safelightproject.safelight.v1.TextToImageServiceGrpc.TextToImageServiceBlockingStub;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.regex.Pattern;

/**
 * Draws an image with Safelight and shows its progress.
 *
 * <pre>java Generate --output red.png "a red circle"</pre>
 *
 * <p>It resumes a stream that breaks, and Ctrl-C cancels the generation.
 */
public final class Generate {
  private static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);
  private static final Pattern GENERATION_ID = Pattern.compile("[\\w.:-]{1,128}");

  public static void main(String[] arguments) throws Exception {
    String target = "127.0.0.1:50051";
    Path output = Path.of("image.png");
    TextToImageParameters.Builder parameters = TextToImageParameters.newBuilder();
    String prompt = "";
    for (Iterator<String> words = List.of(arguments).iterator(); words.hasNext(); ) {
      String word = words.next();
      switch (word) {
        case "--target" -> target = words.next();
        case "--output" -> output = Path.of(words.next());
        case "--width" -> parameters.setWidth(Integer.parseInt(words.next()));
        case "--height" -> parameters.setHeight(Integer.parseInt(words.next()));
        case "--steps" -> parameters.setNumInferenceSteps(Integer.parseInt(words.next()));
        default -> prompt = word;
      }
    }
    GenerateRequest request =
        GenerateRequest.newBuilder().setInputs(prompt).setParameters(parameters).build();
    ManagedChannel channel = connect(target);
    Context.CancellableContext context = Context.current().withCancellation();
    CountDownLatch done = new CountDownLatch(1);
    cancelOnInterrupt(context, done);
    boolean isDone = false;
    try {
      draw(new Client(stub(channel, System.getenv("SAFELIGHT_TOKEN"))), context, request, output);
      isDone = true;
    } catch (StatusRuntimeException e) {
      if (context.isCancelled()) {
        System.err.printf("%ncancelled%n");
      } else {
        explain(e);
      }
    } catch (ProtocolException e) {
      System.err.println(e.getMessage());
    } finally {
      channel.shutdownNow().awaitTermination(1, TimeUnit.SECONDS);
      done.countDown();
    }
    if (!isDone && !context.isCancelled()) {
      System.exit(1);
    }
  }

  static ManagedChannel connect(String target) {
    // Retries of gRPC are off, because Retries below decides.
    return ManagedChannelBuilder.forTarget(target).usePlaintext().disableRetry().build();
  }

  private static TextToImageServiceBlockingStub stub(ManagedChannel channel, String token) {
    Metadata metadata = new Metadata();
    if (token != null) {
      metadata.put(key("authorization"), "Bearer " + token);
    }
    return TextToImageServiceGrpc.newBlockingStub(channel)
        .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata));
  }

  /** Adds the id of a generation to the metadata, by which proxies choose its replica. */
  static TextToImageServiceBlockingStub route(TextToImageServiceBlockingStub stub, String id) {
    if (!GENERATION_ID.matcher(id).matches()) {
      return stub; // the service refuses it, and a header could not hold it
    }
    Metadata metadata = new Metadata();
    metadata.put(key("x-generation-id"), id);
    return stub.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata));
  }

  static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }

  /** Cancels the calls on Ctrl-C, and gives the main thread the time to end its work. */
  private static void cancelOnInterrupt(Context.CancellableContext context, CountDownLatch done) {
    Runnable cancel =
        () -> {
          context.cancel(null);
          try {
            done.await(2 * Client.CANCEL_TIMEOUT_MS, TimeUnit.MILLISECONDS);
          } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
          }
        };
    Runtime.getRuntime().addShutdownHook(new Thread(cancel));
  }

  private static void draw(Client client, Context context, GenerateRequest request, Path output)
      throws IOException {
    client.generate(
        context,
        request,
        (event, data) -> {
          switch (event.getKindCase()) {
            case PROGRESS -> showProgress(event.getProgress());
            case IMAGE -> {
              ImageHeader image = event.getImage();
              System.err.printf(
                  "%n%s: %d x %d, seed %d%n",
                  output, image.getWidth(), image.getHeight(), image.getSeed());
              Files.write(output, data.toByteArray());
            }
            default -> {}
          }
        });
  }

  private static void showProgress(StepProgress progress) {
    int width = 30;
    int filled = width * progress.getStep() / progress.getStepCount();
    String bar = "#".repeat(filled) + ".".repeat(width - filled);
    System.err.printf("\r[%s] step %d of %d", bar, progress.getStep(), progress.getStepCount());
  }

  /** Prints each field that breaks its rule, or else the message of the service. */
  private static void explain(StatusRuntimeException failure) {
    List<BadRequest> bad = details(failure, BadRequest.class);
    if (bad.isEmpty()) {
      System.err.printf("%n%s%n", failure.getMessage());
      return;
    }
    for (BadRequest.FieldViolation violation : bad.get(0).getFieldViolationsList()) {
      System.err.printf("%s: %s%n", violation.getField(), violation.getDescription());
    }
  }

  /** Returns the details of a type, such as {@link BadRequest}. */
  static <T extends Message> List<T> details(StatusRuntimeException failure, Class<T> type) {
    List<T> details = new ArrayList<>();
    Metadata trailers = failure.getTrailers();
    if (trailers == null || !trailers.containsKey(DETAILS)) {
      return details;
    }
    try {
      byte[] bytes = trailers.get(DETAILS);
      for (Any any : com.google.rpc.Status.parseFrom(bytes).getDetailsList()) {
        if (any.is(type)) {
          details.add(any.unpack(type));
        }
      }
    } catch (InvalidProtocolBufferException e) {
      // A proxy may send details that cannot be read.
    }
    return details;
  }

  /** Returns the reason that the service gives, or nothing if the failure is not the service's. */
  static Optional<String> reason(StatusRuntimeException failure) {
    return details(failure, ErrorInfo.class).stream()
        .filter(info -> info.getDomain().equals("safelight"))
        .map(ErrorInfo::getReason)
        .findFirst();
  }

  /** The service broke the contract. */
  static final class ProtocolException extends RuntimeException {
    private static final long serialVersionUID = 1;

    ProtocolException(String message) {
      super(message);
    }
  }

  /** Gets each event once; an image comes as one event, with its checked bytes. */
  interface Handler {
    void handle(GenerationEvent event, ByteString image) throws IOException;
  }

  /** Generates images, and resumes streams that break. */
  static final class Client {
    static final long CANCEL_TIMEOUT_MS = 1000;
    private static final int LINGER_S = 10; // the service runs on for so long after a broken stream

    private final TextToImageServiceBlockingStub stub;

    Client(TextToImageServiceBlockingStub stub) {
      this.stub = stub;
    }

    /**
     * Runs a generation to its end. Cancelling the context, passing its deadline, or an exception
     * of the handler cancels the generation.
     */
    void generate(Context context, GenerateRequest wanted, Handler handler) throws IOException {
      GenerateRequest.Builder builder = wanted.toBuilder();
      if (wanted.getGenerationId().isEmpty()) {
        builder.setGenerationId(UUID.randomUUID().toString());
      }
      if (!wanted.hasLinger()) {
        builder.setLinger(Durations.fromSeconds(LINGER_S));
      }
      GenerateRequest request = builder.build();
      boolean lingers = Durations.isPositive(request.getLinger());
      boolean hasEnded = false;
      try {
        follow(
            context,
            lingers,
            stub -> {
              Iterator<GenerateResponse> responses =
                  route(stub, request.getGenerationId()).generate(request);
              return events(responses, GenerateResponse::getEvent);
            },
            handler);
        hasEnded = true;
      } catch (StatusRuntimeException e) {
        hasEnded = reason(e).isPresent();
        throw e;
      } finally {
        if (lingers && !hasEnded) {
          cancel(request.getGenerationId());
        }
      }
    }

    /** Passes the events of a stream on, and opens it again where it breaks. */
    void follow(
        Context context,
        boolean lingers,
        Function<TextToImageServiceBlockingStub, Iterator<GenerationEvent>> open,
        Handler handler)
        throws IOException {
      Assembler assembler = new Assembler();
      new Retries(context, lingers)
          .run(
              retries -> {
                assembler.restart();
                Iterator<GenerationEvent> events = open.apply(stub);
                while (hasNext(events, assembler)) {
                  Optional<Assembled> assembled = assembler.feed(events.next());
                  retries.note(assembled.isPresent());
                  if (assembled.isPresent()) {
                    handler.handle(assembled.get().event(), assembled.get().image());
                  }
                }
                assembler.finish();
                return null;
              });
    }

    /** Returns whether another event comes; a stream that breaks after its last event has ended. */
    private static boolean hasNext(Iterator<GenerationEvent> events, Assembler assembler) {
      try {
        return events.hasNext();
      } catch (StatusRuntimeException e) {
        if (assembler.isCompleted) {
          return false;
        }
        throw e;
      }
    }

    static <T> Iterator<GenerationEvent> events(
        Iterator<T> responses, Function<T, GenerationEvent> event) {
      return new Iterator<>() {
        @Override
        public boolean hasNext() {
          return responses.hasNext();
        }

        @Override
        public GenerationEvent next() {
          return event.apply(responses.next());
        }
      };
    }

    /** Ends a generation for good: it would linger otherwise. */
    private void cancel(String generationId) {
      CancelGenerationRequest request =
          CancelGenerationRequest.newBuilder().setGenerationId(generationId).build();
      try {
        route(stub, generationId)
            .withDeadlineAfter(CANCEL_TIMEOUT_MS, TimeUnit.MILLISECONDS)
            .cancelGeneration(request);
      } catch (StatusRuntimeException e) {
        // This changes nothing: the service cancels the generation after its linger.
      }
    }
  }

  /**
   * Makes a call again while the service is unavailable or the connection breaks. Repeats a stream
   * that has begun only if its generation lingers.
   */
  static final class Retries {
    private static final int MAX_ATTEMPTS = 4; // of a call that has brought nothing
    private static final int MAX_RESUMES = 10; // of a stream, without a new event
    private static final long FIRST_DELAY_MS = 100;
    private static final long MAX_DELAY_MS = 1000;
    private static final Metadata.Key<String> PUSHBACK = key("grpc-retry-pushback-ms");

    /** Codes of a broken connection; others without a reason are refusals by a proxy. */
    private static final Set<Status.Code> BROKEN =
        EnumSet.of(
            Status.Code.UNAVAILABLE,
            Status.Code.INTERNAL,
            Status.Code.CANCELLED,
            Status.Code.ABORTED,
            Status.Code.UNKNOWN,
            Status.Code.DEADLINE_EXCEEDED);

    /** One attempt of a call. */
    interface Attempt<T> {
      T call(Retries retries) throws IOException;
    }

    private final Context context;
    private final boolean lingers;
    private boolean hasBegun;
    private boolean isStreaming;
    private int attemptCount; // since the last new event

    Retries(Context context, boolean lingers) {
      this.context = context;
      this.lingers = lingers;
    }

    <T> T run(Attempt<T> attempt) throws IOException {
      while (true) {
        attemptCount++;
        isStreaming = false;
        try {
          return runOnce(attempt);
        } catch (StatusRuntimeException e) {
          if (context.isCancelled() || !allowsAnother(e) || !sleep(delayMs(e))) {
            throw e;
          }
        }
      }
    }

    /** Makes the attempt in a context of its own, which ends a stream that is left early. */
    private <T> T runOnce(Attempt<T> attempt) throws IOException {
      Context.CancellableContext own = context.withCancellation();
      Context before = own.attach();
      try {
        return attempt.call(this);
      } finally {
        own.detach(before);
        own.cancel(null);
      }
    }

    void note(boolean isNew) {
      hasBegun = true;
      isStreaming = true;
      if (isNew) {
        attemptCount = 0;
      }
    }

    private boolean allowsAnother(StatusRuntimeException failure) {
      Status.Code code = failure.getStatus().getCode();
      boolean isBroken = BROKEN.contains(code) && reason(failure).isEmpty();
      if (isBroken && hasBegun) {
        return lingers && attemptCount < MAX_RESUMES;
      }
      boolean isTemporary = isBroken || code == Status.Code.UNAVAILABLE;
      return isTemporary && !isStreaming && attemptCount < MAX_ATTEMPTS;
    }

    /** Returns the delay that the service asks for, below 0 for never, or else 0.1 s, doubling. */
    private long delayMs(StatusRuntimeException failure) {
      Metadata trailers = failure.getTrailers();
      String pushback = trailers == null ? null : trailers.get(PUSHBACK);
      if (pushback == null) {
        return Math.min((FIRST_DELAY_MS << attemptCount) / 2, MAX_DELAY_MS);
      }
      try {
        return Long.parseLong(pushback);
      } catch (NumberFormatException e) {
        return -1;
      }
    }

    /** Waits, unless the delay is below 0 or the deadline passes first. */
    private boolean sleep(long delayMs) {
      Deadline deadline = context.getDeadline();
      if (delayMs < 0
          || (deadline != null && deadline.timeRemaining(TimeUnit.MILLISECONDS) <= delayMs)) {
        return false;
      }
      try {
        Thread.sleep(delayMs);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        return false;
      }
      return !context.isCancelled();
    }
  }

  /** An event, with the bytes of an image. */
  record Assembled(GenerationEvent event, ByteString image) {}

  /** Puts images together, and leaves out what an earlier stream has brought. */
  static final class Assembler {
    private final Map<String, Integer> steps = new HashMap<>(); // latest by kind and image
    private final Map<Integer, String> digests = new HashMap<>(); // SHA-256 of the images so far
    private GenerationAccepted accepted;
    private int restartCount;
    private int position;
    private boolean isRepeating; // whether the latest position may come again
    private GenerationEvent header;
    private ByteString data = ByteString.EMPTY;
    private int imageCount; // in this stream
    private boolean isCompleted;

    void restart() {
      header = null;
      imageCount = 0;
      isRepeating = true;
    }

    void finish() {
      require(isCompleted, "the stream ended before the generation");
    }

    /** Returns the event that a message completes. */
    Optional<Assembled> feed(GenerationEvent event) {
      require(!isCompleted, "an event came after the last");
      return switch (event.getKindCase()) {
        case ACCEPTED -> accept(event);
        case QUEUED -> queue(event);
        case PROGRESS -> {
          StepProgress progress = event.getProgress();
          yield advance(event, progress.getImageIndex(), progress.getStep());
        }
        case PREVIEW -> {
          yield advance(event, event.getPreview().getImageIndex(), event.getPreview().getStep());
        }
        case RESTARTED -> goBack(event);
        case IMAGE -> {
          require(
              header == null && event.getImage().getImageIndex() == imageCount,
              "an image came out of turn");
          header = event;
          data = ByteString.EMPTY;
          yield Optional.empty();
        }
        case CHUNK -> extend(event.getChunk());
        case COMPLETED -> {
          int announced = accepted == null ? -1 : accepted.getImageCount();
          require(header == null && imageCount == announced, "images are missing");
          isCompleted = true;
          yield whole(event);
        }
        case KIND_NOT_SET -> Optional.empty(); // of a newer contract
        default -> whole(event);
      };
    }

    private static Optional<Assembled> whole(GenerationEvent event) {
      return Optional.of(new Assembled(event, ByteString.EMPTY));
    }

    private Optional<Assembled> accept(GenerationEvent event) {
      if (event.getAccepted().equals(accepted)) {
        return Optional.empty();
      }
      accepted = event.getAccepted();
      return whole(event);
    }

    private Optional<Assembled> queue(GenerationEvent event) {
      boolean isRepeated = isRepeating && event.getQueued().getPosition() == position;
      position = event.getQueued().getPosition();
      isRepeating = false;
      return isRepeated ? Optional.empty() : whole(event);
    }

    private Optional<Assembled> advance(GenerationEvent event, int image, int step) {
      String key = event.getKindCase().name() + image;
      if (step <= steps.getOrDefault(key, 0)) {
        return Optional.empty();
      }
      steps.put(key, step);
      return whole(event);
    }

    /** Takes a restart, after which steps go back. */
    private Optional<Assembled> goBack(GenerationEvent event) {
      if (event.getRestarted().getRestartCount() <= restartCount) {
        return Optional.empty();
      }
      restartCount = event.getRestarted().getRestartCount();
      steps.clear();
      return whole(event);
    }

    private Optional<Assembled> extend(ImageChunk chunk) {
      require(header != null, "a chunk came out of turn");
      ImageHeader image = header.getImage();
      require(
          chunk.getImageIndex() == image.getImageIndex() && chunk.getOffsetBytes() == data.size(),
          "a chunk came out of turn");
      data = data.concat(chunk.getData());
      if (data.size() < image.getSizeBytes()) {
        return Optional.empty();
      }
      require(
          data.size() == image.getSizeBytes() && sha256(data).equals(image.getSha256()),
          "an image has other bytes than announced");
      Assembled assembled = new Assembled(header, data);
      header = null;
      imageCount++;
      String before = digests.put(image.getImageIndex(), image.getSha256());
      require(
          before == null || before.equals(image.getSha256()),
          "an image is not the one from before");
      return before == null ? Optional.of(assembled) : Optional.empty();
    }

    private static void require(boolean condition, String message) {
      if (!condition) {
        throw new ProtocolException(message);
      }
    }
  }

  static String sha256(ByteString data) {
    try {
      MessageDigest digest = MessageDigest.getInstance("SHA-256");
      return HexFormat.of().formatHex(digest.digest(data.toByteArray()));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }
}
