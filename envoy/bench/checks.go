package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	inFlight    = 16 // checks at a time
	connections = 2  // over which they are spread
)

// checks sends an authorizer checks as Envoy does, each for another request, and measures them.
func checks(ctx context.Context, port int, l *load, s span, at func() error) (*measurement, error) {
	conns := make([]*grpc.ClientConn, connections)
	for i := range conns {
		conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///127.0.0.1:%d", port),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wireCodec{})),
			grpc.WithDisableRetry()) // retries would keep copies of requests
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		conns[i] = conn
	}
	calls := make([]call, inFlight)
	for i := range calls {
		requests, err := l.requests()
		if err != nil {
			return nil, err
		}
		conn, rnd := conns[i%len(conns)], rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
		a, buf := answer{reason: []byte(l.reason)}, make([]byte, 0, keyLen)
		calls[i] = func(ctx context.Context, now time.Time) error {
			q := requests[rnd.IntN(len(requests))]
			q.renew(rnd, now, l.next(buf, rnd))
			if err := conn.Invoke(ctx, authv3.Authorization_Check_FullMethodName, q, &a); err != nil {
				return err
			}
			return a.err
		}
	}
	if err := warmKeys(ctx, conns, l); err != nil {
		return nil, err
	}
	return drive(ctx, s, calls, at)
}

// warmKeys sends one check for each key of the load. The first check of a key costs more than later ones, and the comparison
// is about a server that has run for hours.
func warmKeys(ctx context.Context, conns []*grpc.ClientConn, l *load) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range inFlight {
		g.Go(func() error {
			requests, err := l.requests()
			if err != nil {
				return err
			}
			conn, rnd := conns[i%len(conns)], rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
			for n := i; n < l.callers; n += inFlight {
				var a answer
				q := requests[0]
				q.renew(rnd, time.Now(), l.nth(n))
				if err := conn.Invoke(ctx, authv3.Authorization_Check_FullMethodName, q, &a); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// answer compares a CheckResponse with the one that is expected.
type answer struct {
	reason []byte // of the expected denial; empty: an allow is expected
	err    error  // nil: the answer is as expected
}

// wireCodec sends wireRequests unchanged, and decodes as little of an answer as possible.
type wireCodec struct{}

// Name is that of the usual codec, so that servers use it.
func (wireCodec) Name() string { return "proto" }

func (wireCodec) Marshal(v any) (mem.BufferSlice, error) {
	q, ok := v.(*wireRequest)
	if !ok {
		return nil, fmt.Errorf("a %T is not a wireRequest", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(q.wire)}, nil
}

func (wireCodec) Unmarshal(data mem.BufferSlice, v any) error {
	a, ok := v.(*answer)
	if !ok {
		return fmt.Errorf("a %T is not an answer", v)
	}
	wire := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer wire.Free()
	a.err = a.judge(wire.ReadOnlyData())
	return nil
}

func (a *answer) judge(wire []byte) error {
	no, err := denied(wire)
	switch {
	case err != nil:
		return err
	case no && (len(a.reason) == 0 || !bytes.Contains(wire, a.reason)):
		return denialOf(wire)
	case !no && len(a.reason) > 0:
		return denial("allowed")
	}
	return nil
}

// denied reports whether an answer is a denial. An allow has the code 0 in its status (field 1 of CheckResponse).
func denied(wire []byte) (bool, error) {
	for rest := wire; len(rest) > 0; {
		number, kind, tag := protowire.ConsumeTag(rest)
		if tag < 0 {
			return false, errNoAnswer
		}
		size := protowire.ConsumeFieldValue(number, kind, rest[tag:])
		if size < 0 {
			return false, errNoAnswer
		}
		if number == 1 && size > 1 { // not empty: a code other than 0, which proto3 omits, or a message
			return true, nil
		}
		rest = rest[tag+size:]
	}
	return false, nil
}

var errNoAnswer = errors.New("the answer is not a CheckResponse")

// denialOf decodes a denial into its status and reason.
func denialOf(wire []byte) error {
	var resp authv3.CheckResponse
	if err := proto.Unmarshal(wire, &resp); err != nil {
		return fmt.Errorf("the answer is not a CheckResponse: %w", err)
	}
	denied := resp.GetDeniedResponse()
	reason := "no reason"
	for _, h := range denied.GetHeaders() {
		if h.GetHeader().GetKey() == "x-authz-reason" {
			reason = h.GetHeader().GetValue() + string(h.GetHeader().GetRawValue())
		}
	}
	return denial(fmt.Sprintf("%d %s", denied.GetStatus().GetCode(), reason))
}
