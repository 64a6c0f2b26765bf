package extauthz

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

// forget records nothing.
type forget struct{}

func (forget) Record(*check.Entry) {}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// marshal is a message as it is sent.
func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// ask checks a message as gRPC does, with the codec before and after.
func ask(t testing.TB, s *Server, message []byte) *authv3.CheckResponse {
	t.Helper()
	reply, err := handle(s, context.Background(), func(v any) error {
		return Codec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(message)}, v)
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, reply)
}

func read(t testing.TB, reply any) *authv3.CheckResponse {
	t.Helper()
	out, err := Codec().Marshal(reply)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Free()
	var resp authv3.CheckResponse
	if err := proto.Unmarshal(out.Materialize(), &resp); err != nil {
		t.Fatalf("the answer cannot be read: %v", err)
	}
	return &resp
}

// readLines reads a file with one JSON value a line.
func readLines[T any](t *testing.T, path string) (out []T) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for dec := json.NewDecoder(file); ; {
		var v T
		if err := dec.Decode(&v); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
}
