package server

import (
	"context"

	"google.golang.org/grpc"
)

// streamEnder ends the open streams of a gRPC server that shuts down. The only streams are those of clients who watch its
// health. They have been told NOT_SERVING by then, and each of them would hold up a graceful stop until its time is over.
type streamEnder struct {
	ended context.Context
	end   context.CancelFunc
}

func newStreamEnder() streamEnder {
	ended, end := context.WithCancel(context.Background())
	return streamEnder{ended, end}
}

func (e streamEnder) interceptor(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	defer context.AfterFunc(e.ended, cancel)()
	return handler(srv, endingStream{s, ctx})
}

type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s endingStream) Context() context.Context { return s.ctx }
