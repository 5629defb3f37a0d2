// The runner of the conformance kit (clients/conformance): a test binary, so that it can share the
// package of the example and still have a main of its own.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	pb "github.com/safelight-project/safelight/clients/go/safelight/v1"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

type job struct {
	Target     string            `json:"target"`
	Method     string            `json:"method"`
	Request    json.RawMessage   `json:"request"`
	TimeoutMs  float64           `json:"timeout_ms"`
	Token      string            `json:"token"`
	Metadata   map[string]string `json:"metadata"`
	LeaveAfter int               `json:"leave_after"`
}

var errLeft = errors.New("the caller has left")

func TestMain(*testing.M) {
	jobs := bufio.NewScanner(os.Stdin)
	jobs.Buffer(nil, 1<<24)
	for jobs.Scan() {
		var next job
		check(json.Unmarshal(jobs.Bytes(), &next))
		if err := next.run(); err != nil && !errors.Is(err, errLeft) {
			printFailure(err)
		}
		fmt.Println()
	}
	check(jobs.Err())
	os.Exit(0)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func (j *job) run() error {
	connection, err := grpc.Dial(j.Target, grpc.WithInsecure())
	check(err)
	defer connection.Close()
	client := pb.NewTextToImageServiceClient(connection)

	ctx := metadata.NewOutgoingContext(context.Background(), metadata.New(j.Metadata))
	if j.Token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+j.Token)
	}
	if j.TimeoutMs != 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, time.Duration(j.TimeoutMs*float64(time.Millisecond)))
		defer stop()
	}
	switch j.Method {
	case "Generate":
		request := &pb.GenerateRequest{}
		check(protojson.Unmarshal(j.Request, request))
		return Generate(ctx, client, request, j.printEvents())
	case "WatchGeneration":
		request := &pb.WatchGenerationRequest{}
		check(protojson.Unmarshal(j.Request, request))
		ctx = Route(ctx, request.GenerationId)
		return Follow(ctx, true, func(ctx context.Context) (EventStream, error) {
			stream, err := client.WatchGeneration(ctx, request)
			if err != nil {
				return EventStream{}, err
			}
			next := func() (*pb.GenerationEvent, error) {
				response, err := stream.Recv()
				return response.GetEvent(), err
			}
			return EventStream{next, stream.Trailer}, nil
		}, j.printEvents())
	case "CancelGeneration":
		request := &pb.CancelGenerationRequest{}
		check(protojson.Unmarshal(j.Request, request))
		return j.call(Route(ctx, request.GenerationId), connection, request, &pb.CancelGenerationResponse{})
	case "ListModels":
		return j.call(ctx, connection, &pb.ListModelsRequest{}, &pb.ListModelsResponse{})
	case "GetModel":
		return j.call(ctx, connection, &pb.GetModelRequest{}, &pb.GetModelResponse{})
	}
	panic("unknown method " + j.Method)
}

// call makes a call without a stream, and prints its response.
func (j *job) call(ctx context.Context, connection *grpc.ClientConn, request, response proto.Message) error {
	check(protojson.Unmarshal(j.Request, request))
	err := Retry(ctx, false, func(ctx context.Context, _ *Attempts) (metadata.MD, error) {
		var trailer metadata.MD
		method := "/safelight.v1.TextToImageService/" + j.Method
		err := connection.Invoke(ctx, method, request, response, grpc.Trailer(&trailer))
		return trailer, err
	})
	if err == nil {
		fmt.Println(toJSON(response))
	}
	return err
}

func (j *job) printEvents() Handler {
	count := 0
	return func(event *pb.GenerationEvent, data []byte) error {
		if event.GetImage() == nil {
			fmt.Println(toJSON(event))
		} else {
			fmt.Printf("{\"image\": %s, \"received\": \"%x\"}\n", toJSON(event.GetImage()), sha256.Sum256(data))
		}
		count++
		if count == j.LeaveAfter {
			return errLeft
		}
		return nil
	}
}

func toJSON(message proto.Message) string {
	text, err := protojson.Marshal(message)
	check(err)
	return string(text)
}

func printFailure(err error) {
	failure := status.Convert(err)
	line := map[string]any{"code": code.Code(failure.Code()).String(), "message": failure.Message()}
	if errors.Is(err, ErrProtocol) {
		line["code"] = "PROTOCOL"
	}
	if reason := Reason(err); reason != "" {
		line["reason"] = reason
	}
	for _, detail := range failure.Details() {
		switch detail := detail.(type) {
		case *errdetails.BadRequest:
			violations := []map[string]string{}
			for _, violation := range detail.FieldViolations {
				violations = append(violations, map[string]string{"field": violation.Field, "description": violation.Description})
			}
			line["violations"] = violations
		case *errdetails.RetryInfo:
			line["retry_after_ms"] = detail.RetryDelay.AsDuration().Milliseconds()
		}
	}
	text, err := json.Marshal(map[string]any{"error": line})
	check(err)
	fmt.Println(string(text))
}
