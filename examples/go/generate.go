// Command generate draws an image with Safelight and shows its progress:
//
//	generate -output red.png "a red circle"
//
// It resumes a stream that breaks, and Ctrl-C cancels the generation.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"time"

	pb "github.com/safelight-project/safelight/clients/go/safelight/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	defaultLinger = 10 * time.Second // the service runs on for so long after a broken stream
	maxAttempts   = 4                // of a call that has brought nothing
	maxResumes    = 10               // of a stream, without a new event
	firstDelay    = 100 * time.Millisecond
	maxDelay      = time.Second
	cancelTimeout = time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx))
}

// run draws the image that the command line asks for, and returns the exit status.
func run(ctx context.Context) int {
	target := flag.String("target", "127.0.0.1:50051", "address of the service")
	output := flag.String("output", "image.png", "file to write")
	parameters := &pb.TextToImageParameters{}
	flag.Func("width", "width in pixels", intFlag(&parameters.Width))
	flag.Func("height", "height in pixels", intFlag(&parameters.Height))
	flag.Func("steps", "number of steps", intFlag(&parameters.NumInferenceSteps))
	flag.Parse()

	if token := os.Getenv("SAFELIGHT_TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	connection, err := grpc.Dial(*target, grpc.WithInsecure())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer connection.Close()

	client := pb.NewTextToImageServiceClient(connection)
	request := &pb.GenerateRequest{Inputs: flag.Arg(0), Parameters: parameters}
	err = Generate(ctx, client, request, func(event *pb.GenerationEvent, data []byte) error {
		if progress := event.GetProgress(); progress != nil {
			showProgress(progress)
		}
		if image := event.GetImage(); image != nil {
			fmt.Fprintf(os.Stderr, "\n%s: %d x %d, seed %d\n", *output, image.Width, image.Height, image.Seed)
			return os.WriteFile(*output, data, 0o644)
		}
		return nil
	})
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "\ncancelled")
		return 130
	}
	if err != nil {
		explain(err)
		return 1
	}
	return 0
}

// intFlag returns a parser of a flag that stays nil, and so takes the model's default, if absent.
func intFlag(field **int32) func(string) error {
	return func(text string) error {
		number, err := strconv.ParseInt(text, 10, 32)
		*field = proto.Int32(int32(number))
		return err
	}
}

func showProgress(progress *pb.StepProgress) {
	const width = 30
	filled := int(width * progress.Step / progress.StepCount)
	bar := strings.Repeat("#", filled) + strings.Repeat(".", width-filled)
	fmt.Fprintf(os.Stderr, "\r[%s] step %d of %d", bar, progress.Step, progress.StepCount)
}

// explain prints each field that breaks its rule, or else the message of the service.
func explain(err error) {
	failure := status.Convert(err)
	for _, detail := range failure.Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, violation := range bad.FieldViolations {
				fmt.Fprintf(os.Stderr, "%s: %s\n", violation.Field, violation.Description)
			}
			return
		}
	}
	fmt.Fprintf(os.Stderr, "%s: %s\n", failure.Code(), failure.Message())
}

// Handler gets each event once. An image comes as one event, with its checked bytes. An error
// leaves the generation, and Generate returns it.
type Handler func(event *pb.GenerationEvent, image []byte) error

// Generate runs a generation to its end, and resumes its stream where it breaks. If it cannot, or
// ctx ends, it cancels the generation.
func Generate(ctx context.Context, client pb.TextToImageServiceClient, request *pb.GenerateRequest, handle Handler) error {
	if request.GenerationId == "" {
		request.GenerationId = newID()
	}
	if request.Linger == nil {
		request.Linger = durationpb.New(defaultLinger)
	}
	ctx = Route(ctx, request.GenerationId)
	lingers := request.Linger.AsDuration() > 0
	err := Follow(ctx, lingers, func(ctx context.Context) (EventStream, error) {
		stream, err := client.Generate(ctx, request)
		if err != nil {
			return EventStream{}, err
		}
		next := func() (*pb.GenerationEvent, error) {
			response, err := stream.Recv()
			return response.GetEvent(), err
		}
		return EventStream{next, stream.Trailer}, nil
	}, handle)
	if err != nil && lingers && Reason(err) == "" {
		cancel(ctx, client, request.GenerationId)
	}
	return err
}

func min(a, b time.Duration) time.Duration {
	if a < b {
		return a
	}
	return b
}

func newID() string {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		panic(err)
	}
	return hex.EncodeToString(id)
}

// generationID matches the ids that the contract allows.
var generationID = regexp.MustCompile(`^[\w.:-]{1,128}$`)

// Route adds the id of a generation to the metadata, by which proxies choose its replica.
func Route(ctx context.Context, id string) context.Context {
	if !generationID.MatchString(id) {
		return ctx // the service refuses it, and a header could not hold it
	}
	return metadata.AppendToOutgoingContext(ctx, "x-generation-id", id)
}

// cancel ends a generation for good: it would linger otherwise. ctx may have ended already.
func cancel(ctx context.Context, client pb.TextToImageServiceClient, id string) {
	sent, _ := metadata.FromOutgoingContext(ctx)
	ctx, stop := context.WithTimeout(context.Background(), cancelTimeout)
	defer stop()
	ctx = metadata.NewOutgoingContext(ctx, sent)
	// A failure changes nothing: the service cancels the generation after its linger.
	_, _ = client.CancelGeneration(ctx, &pb.CancelGenerationRequest{GenerationId: id})
}

// EventStream is the stream of Generate or of WatchGeneration.
type EventStream struct {
	Next    func() (*pb.GenerationEvent, error) // io.EOF at the end
	Trailer func() metadata.MD
}

// Follow passes the events of a stream on, and opens it again where it breaks.
func Follow(ctx context.Context, lingers bool, open func(context.Context) (EventStream, error), handle Handler) error {
	events := assembler{}
	return Retry(ctx, lingers, func(ctx context.Context, attempts *Attempts) (metadata.MD, error) {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		events.restart()
		stream, err := open(ctx)
		if err != nil {
			return nil, err
		}
		for {
			message, err := stream.Next()
			if err != nil && events.isCompleted {
				return nil, nil // all has come, even if the stream broke then
			}
			if err == io.EOF {
				return nil, fmt.Errorf("%w: the stream ended before the generation", ErrProtocol)
			}
			if err != nil {
				return stream.Trailer(), err
			}
			event, data, err := events.feed(message)
			if err != nil {
				return nil, err
			}
			attempts.note(event != nil)
			if event != nil {
				if err := handle(event, data); err != nil {
					return nil, err
				}
			}
		}
	})
}

// Attempts decides whether to make a failed call again.
type Attempts struct {
	lingers     bool // whether the generation outlives a broken stream
	hasBegun    bool // whether any attempt has brought a message
	isStreaming bool // whether the present one has
	count       int  // since the last new event
}

// Retry makes a call again while the service is unavailable or the connection breaks. A stream that
// has begun is repeated only if it lingers.
func Retry(ctx context.Context, lingers bool, call func(context.Context, *Attempts) (trailer metadata.MD, err error)) error {
	attempts := &Attempts{lingers: lingers}
	for {
		attempts.count++
		attempts.isStreaming = false
		trailer, err := call(ctx, attempts)
		if err == nil || ctx.Err() != nil || !attempts.allowAnother(err) {
			return err
		}
		delay := attempts.delay(trailer)
		deadline, hasDeadline := ctx.Deadline()
		if delay < 0 || hasDeadline && time.Until(deadline) <= delay {
			return err
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return err
		}
	}
}

func (a *Attempts) note(isNew bool) {
	a.hasBegun, a.isStreaming = true, true
	if isNew {
		a.count = 0
	}
}

func (a *Attempts) allowAnother(err error) bool {
	failure, isStatus := status.FromError(err)
	if !isStatus {
		return false
	}
	if isBroken(failure) && a.hasBegun {
		return a.lingers && a.count < maxResumes
	}
	isTemporary := isBroken(failure) || failure.Code() == codes.Unavailable
	return isTemporary && !a.isStreaming && a.count < maxAttempts
}

// delay returns the time that the service asks for, below 0 for never, or else 0.1 s, doubling.
func (a *Attempts) delay(trailer metadata.MD) time.Duration {
	if pushback := trailer.Get("grpc-retry-pushback-ms"); len(pushback) > 0 {
		milliseconds, err := strconv.Atoi(pushback[0])
		if err != nil {
			return -1
		}
		return time.Duration(milliseconds) * time.Millisecond
	}
	return min(firstDelay<<a.count/2, maxDelay)
}

// isBroken tells a broken connection from a failure of the service, which has a reason, and from a
// refusal by a proxy, which has another code.
func isBroken(failure *status.Status) bool {
	switch failure.Code() {
	case codes.Unavailable, codes.Internal, codes.Canceled, codes.Aborted, codes.Unknown, codes.DeadlineExceeded:
		return Reason(failure.Err()) == ""
	}
	return false
}

// Reason returns the reason that the service gives for a failure, empty if it is not the service's.
func Reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "safelight" {
			return info.Reason
		}
	}
	return ""
}

// ErrProtocol means that the service broke the contract.
var ErrProtocol = errors.New("the service broke the contract")

// assembler puts images together, and leaves out what an earlier stream has brought.
type assembler struct {
	accepted     *pb.GenerationAccepted
	position     int32
	isRepeating  bool             // whether the latest position may come again
	steps        map[string]int32 // latest step by kind of event and image
	restartCount int32
	digests      map[int32]string // SHA-256 of the images so far
	header       *pb.GenerationEvent
	data         bytes.Buffer
	imageCount   int32 // in this stream
	isCompleted  bool
}

func (a *assembler) restart() {
	if a.steps == nil {
		a.steps, a.digests = map[string]int32{}, map[int32]string{}
	}
	a.header, a.imageCount, a.isRepeating = nil, 0, true
}

// feed returns the event that a message completes, with the bytes of an image, or nil.
func (a *assembler) feed(event *pb.GenerationEvent) (*pb.GenerationEvent, []byte, error) {
	if a.isCompleted {
		return nil, nil, fmt.Errorf("%w: an event came after the last", ErrProtocol)
	}
	switch kind := event.GetKind().(type) {
	case nil: // of a newer contract
		return nil, nil, nil
	case *pb.GenerationEvent_Accepted:
		if proto.Equal(a.accepted, kind.Accepted) {
			return nil, nil, nil
		}
		a.accepted = kind.Accepted
	case *pb.GenerationEvent_Queued:
		isRepeated := a.isRepeating && kind.Queued.Position == a.position
		a.position, a.isRepeating = kind.Queued.Position, false
		if isRepeated {
			return nil, nil, nil
		}
	case *pb.GenerationEvent_Progress:
		if !a.advance("progress", kind.Progress.ImageIndex, kind.Progress.Step) {
			return nil, nil, nil
		}
	case *pb.GenerationEvent_Preview:
		if !a.advance("preview", kind.Preview.ImageIndex, kind.Preview.Step) {
			return nil, nil, nil
		}
	case *pb.GenerationEvent_Restarted: // steps go back
		if kind.Restarted.RestartCount <= a.restartCount {
			return nil, nil, nil
		}
		a.restartCount, a.steps = kind.Restarted.RestartCount, map[string]int32{}
	case *pb.GenerationEvent_Image:
		if a.header != nil || kind.Image.ImageIndex != a.imageCount {
			return nil, nil, fmt.Errorf("%w: an image came out of turn", ErrProtocol)
		}
		a.header = event
		a.data.Reset()
		return nil, nil, nil
	case *pb.GenerationEvent_Chunk:
		return a.extend(kind.Chunk)
	case *pb.GenerationEvent_Completed:
		if a.header != nil || a.accepted == nil || a.imageCount != a.accepted.ImageCount {
			return nil, nil, fmt.Errorf("%w: images are missing", ErrProtocol)
		}
		a.isCompleted = true
	}
	return event, nil, nil
}

func (a *assembler) advance(kind string, image, step int32) bool {
	key := fmt.Sprint(kind, image)
	if step <= a.steps[key] {
		return false
	}
	a.steps[key] = step
	return true
}

func (a *assembler) extend(chunk *pb.ImageChunk) (*pb.GenerationEvent, []byte, error) {
	image := a.header.GetImage()
	if image == nil || chunk.ImageIndex != image.ImageIndex || chunk.OffsetBytes != int64(a.data.Len()) {
		return nil, nil, fmt.Errorf("%w: a chunk came out of turn", ErrProtocol)
	}
	a.data.Write(chunk.Data)
	if int64(a.data.Len()) < image.SizeBytes {
		return nil, nil, nil
	}
	digest := sha256.Sum256(a.data.Bytes())
	if int64(a.data.Len()) > image.SizeBytes || hex.EncodeToString(digest[:]) != image.Sha256 {
		return nil, nil, fmt.Errorf("%w: an image has other bytes than announced", ErrProtocol)
	}
	event := a.header
	a.header = nil
	a.imageCount++
	if before, isRepeated := a.digests[image.ImageIndex]; isRepeated {
		if before != image.Sha256 {
			return nil, nil, fmt.Errorf("%w: an image is not the one from before", ErrProtocol)
		}
		return nil, nil, nil
	}
	a.digests[image.ImageIndex] = image.Sha256
	return event, append([]byte(nil), a.data.Bytes()...), nil
}
