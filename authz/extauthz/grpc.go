package extauthz

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// ServiceName and checkMethod are what Envoy calls.
const (
	ServiceName = "envoy.service.auth.v3.Authorization"
	checkMethod = "/" + ServiceName + "/Check"
)

// Register makes a gRPC server answer Envoy's checks. The server must have been made with Codec.
func Register(r grpc.ServiceRegistrar, s *Server) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: ServiceName,
		HandlerType: (*checks)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Check", Handler: handle}},
		Metadata:    "envoy/service/auth/v3/external_auth.proto",
	}, s)
}

// checks is what handle calls.
type checks interface {
	check(ctx context.Context, q *question) *answer
}

var _ checks = (*Server)(nil)

func handle(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	q := new(question)
	if err := dec(q); err != nil { // never of ours
		return nil, err
	}
	if interceptor == nil {
		return srv.(checks).check(ctx, q), nil
	}
	return interceptor(ctx, q, &grpc.UnaryServerInfo{Server: srv, FullMethod: checkMethod}, func(ctx context.Context, q any) (any, error) {
		return srv.(checks).check(ctx, q.(*question)), nil
	})
}

// question is a CheckRequest as it came. It is read only when the check has begun, so that whatever is wrong with it is
// denied and recorded, where an error of the codec would be left to Envoy's failure mode.
type question struct{ message string }

// answer is a CheckResponse that is ready to be sent, once.
type answer struct{ message [1]mem.Buffer }

// responseBytes is for how much of a response there is memory from the beginning. Almost all are shorter, and gRPC does
// not keep buffers of a kilobyte or less for the next.
const responseBytes = 4 << 10

func newAnswer(d *authz.Decision) *answer {
	pool := mem.DefaultBufferPool()
	b := pool.Get(responseBytes)
	*b = appendResponse((*b)[:0], d)
	return &answer{message: [1]mem.Buffer{mem.NewBuffer(b, pool)}}
}

// Codec returns the codec for servers that answer checks: it carries their messages as they are, and leaves all others to
// protobuf.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2(proto.Name)} }

type codec struct{ encoding.CodecV2 }

// Unmarshal takes the one copy of a message that is made. The bytes themselves belong to gRPC, and soon to the next.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	q, ok := v.(*question)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	if len(data) == 1 {
		q.message = string(data[0].ReadOnlyData())
		return nil
	}
	var b strings.Builder
	b.Grow(data.Len())
	for _, part := range data {
		b.Write(part.ReadOnlyData())
	}
	q.message = b.String()
	return nil
}

// Marshal gives the buffer of an answer to gRPC, which returns it to its pool when it is sent.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	a, ok := v.(*answer)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	return a.message[:], nil
}
