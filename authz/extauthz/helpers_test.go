package extauthz

import (
	"context"
	"log/slog"
	"testing"
	"unsafe"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
)

// forget records nothing.
type forget struct{}

func (forget) Record(*check.Entry) {}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// wire is a message as it is sent.
func wire(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// ask has a message checked on the way on which gRPC does it, with the codec before and after.
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

// answerTo is a decision as it is sent.
func answerTo(t testing.TB, d authz.Decision) *authv3.CheckResponse {
	t.Helper()
	return read(t, newAnswer(&d))
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

// isPartOf reports whether a text lies in the memory of another.
func isPartOf(s, whole string) bool {
	at, start := uintptr(unsafe.Pointer(unsafe.StringData(s))), uintptr(unsafe.Pointer(unsafe.StringData(whole)))
	return at >= start && at < start+uintptr(len(whole))
}
