// A backend in Go: GET /draw?prompt=… draws by gRPC and answers with server-sent events (examples/README.md).
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/ioutil"
	"log"
	"math"
	"net/http"
	"os"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	hart "hart.dev/gen/hart/v1"
)

type fields map[string]interface{}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// described has the status and its details; a status without details comes from gRPC itself or from a proxy.
func described(err error) fields {
	failed := status.Convert(err)
	found := fields{"code": code.Code(failed.Code()).String(), "message": failed.Message()}
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			found["reason"], found["metadata"] = detail.Reason, detail.Metadata
		case *errdetails.BadRequest:
			bad := map[string]string{}
			for _, violation := range detail.FieldViolations {
				bad[violation.Field] = violation.Description
			}
			found["fields"] = bad
		case *errdetails.RetryInfo:
			found["retryAfterSeconds"] = detail.RetryDelay.AsDuration().Seconds()
		}
	}
	return found
}

// draw sends the events of one call to the browser. It ends with the request's context: a browser that leaves cancels it.
func draw(ctx context.Context, images hart.ImagesClient, request *hart.GenerateRequest, send func(string, fields)) error {
	stream, err := images.GenerateStream(ctx, request)
	for err == nil {
		var event *hart.GenerateEvent
		if event, err = stream.Recv(); err != nil {
			break
		}
		if preview := event.GetProgress().GetPreview(); preview != nil {
			send("preview", fields{"scale": event.GetProgress().Scale, "image": preview.Data}) // JSON has bytes in base64
		}
		if image := event.GetImage(); image != nil {
			send("image", fields{"seed": strconv.FormatUint(image.Seed, 10), "image": image.Data})
		}
	}
	if err == io.EOF {
		return nil
	}
	return err
}

func main() {
	config, err := ioutil.ReadFile("../../client/hart/service_config.json")
	if err != nil {
		log.Fatal(err)
	}
	connection, err := grpc.Dial(env("HART_ENDPOINT", "127.0.0.1:50051"), grpc.WithInsecure(),
		grpc.WithDefaultServiceConfig(string(config)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		log.Fatal(err)
	}
	images := hart.NewImagesClient(connection)
	http.HandleFunc("/draw", func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		request := &hart.GenerateRequest{Prompt: query.Get("prompt"), PreviewEvery: 1}
		if seed, err := strconv.ParseUint(query.Get("seed"), 10, 64); err == nil {
			request.Seed = &seed
		}
		seconds, err := strconv.ParseFloat(query.Get("seconds"), 64)
		if err != nil {
			seconds = 30
		}
		ctx, cancel := context.WithTimeout(r.Context(), time.Duration(seconds*float64(time.Second)))
		defer cancel()
		w.Header().Set("Content-Type", "text/event-stream")
		send := func(name string, data fields) {
			text, _ := json.Marshal(data)
			fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, text)
			w.(http.Flusher).Flush()
		}
		if err := draw(ctx, images, request, send); err != nil {
			send("error", described(err))
		}
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+env("PORT", "8080"), nil))
}
