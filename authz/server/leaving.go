package server

import (
	"context"

	"google.golang.org/grpc"
)

// leaving ends the streams of a server that leaves. There are none but those of clients who watch its health, who were
// told by then, and each of them would hold up the end for as long as it may take.
type leaving struct {
	over  context.Context
	begin context.CancelFunc
}

func newLeaving() leaving {
	over, begin := context.WithCancel(context.Background())
	return leaving{over, begin}
}

func (l leaving) interceptor(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	defer context.AfterFunc(l.over, cancel)()
	return handler(srv, endingStream{s, ctx})
}

type endingStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s endingStream) Context() context.Context { return s.ctx }
