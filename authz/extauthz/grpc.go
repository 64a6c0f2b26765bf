package extauthz

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/extauthz/wire"
)

// ServiceName and checkMethod are the service and the method that Envoy calls.
const (
	ServiceName = "envoy.service.auth.v3.Authorization"
	checkMethod = "/" + ServiceName + "/Check"
)

// Register makes a gRPC server answer Envoy's checks. The server must use Codec.
func Register(r grpc.ServiceRegistrar, s *Server) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: ServiceName,
		HandlerType: (*handler)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Check", Handler: handle}},
		Metadata:    "envoy/service/auth/v3/external_auth.proto",
	}, s)
}

type handler interface {
	check(ctx context.Context, in *checkRequest) *checkResponse
}

var _ handler = (*Server)(nil)

func handle(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	in := new(checkRequest)
	if err := dec(in); err != nil { // gRPC's own error: our codec returns none
		return nil, err
	}
	if interceptor == nil {
		return srv.(handler).check(ctx, in), nil
	}
	return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: checkMethod}, func(ctx context.Context, in any) (any, error) {
		return srv.(handler).check(ctx, in.(*checkRequest)), nil
	})
}

// checkRequest is an encoded CheckRequest. It is decoded only after the check has begun, so that a malformed one is denied and
// recorded. If the codec returned an error, Envoy's failure mode would decide.
type checkRequest struct{ message string }

// checkResponse is an encoded CheckResponse. It can be sent once.
type checkResponse struct{ message [1]mem.Buffer }

// responseBytes is the size of the buffer for a response. Most responses are much smaller, but gRPC does not reuse buffers of a
// kilobyte or less.
const responseBytes = 4 << 10

func newResponse(d *authz.Decision) *checkResponse {
	pool := mem.DefaultBufferPool()
	b := pool.Get(responseBytes)
	*b = wire.AppendResponse((*b)[:0], d)
	return &checkResponse{message: [1]mem.Buffer{mem.NewBuffer(b, pool)}}
}

// Codec returns the codec for servers that answer checks. It does not decode or encode messages of checks. All other messages go
// to protobuf's codec.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2(proto.Name)} }

type codec struct{ encoding.CodecV2 }

// Unmarshal copies the message, because gRPC reuses the bytes. It is the only copy that is made.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*checkRequest)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	var b strings.Builder
	b.Grow(data.Len())
	for _, part := range data {
		b.Write(part.ReadOnlyData())
	}
	in.message = b.String()
	return nil
}

// Marshal gives the buffer of a response to gRPC, which returns it to its pool after sending it.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	out, ok := v.(*checkResponse)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	return out.message[:], nil
}
