package main

import (
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

// How many checks are under way at a time, and over how many connections.
const (
	inFlight    = 16
	connections = 2
)

// checks asks an authorizer as Envoy does, with another request each time.
func checks(ctx context.Context, port int, keys keySet, s span, at func() error) (*taking, error) {
	conns := make([]*grpc.ClientConn, connections)
	for i := range conns {
		conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///127.0.0.1:%d", port),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wireCodec{})),
			grpc.WithDisableRetry()) // which would keep copies of what was sent
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		conns[i] = conn
	}
	calls := make([]call, inFlight)
	for i := range calls {
		questions, err := newQuestions()
		if err != nil {
			return nil, err
		}
		conn, rnd := conns[i%len(conns)], rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
		var a answer
		calls[i] = func(ctx context.Context, now time.Time) error {
			q := questions[rnd.IntN(len(questions))]
			q.renew(rnd, now, keys.random(rnd))
			if err := conn.Invoke(ctx, authv3.Authorization_Check_FullMethodName, q, &a); err != nil {
				return err
			}
			return a.err
		}
	}
	if err := meet(ctx, conns, keys); err != nil {
		return nil, err
	}
	return drive(ctx, s, calls, at)
}

// meet asks once about every key that will be asked about. A key that nobody has asked about for long costs more than
// others, and a server that has just started knows none: what is compared is what goes on for hours.
func meet(ctx context.Context, conns []*grpc.ClientConn, keys keySet) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range inFlight {
		g.Go(func() error {
			questions, err := newQuestions()
			if err != nil {
				return err
			}
			conn, rnd := conns[i%len(conns)], rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
			for n := i; n < keys.asked(); n += inFlight {
				var a answer
				q := questions[0]
				q.renew(rnd, time.Now(), keys.nth(n))
				if err := conn.Invoke(ctx, authv3.Authorization_Check_FullMethodName, q, &a); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// answer is what is read of a CheckResponse: nil for a yes.
type answer struct{ err error }

// wireCodec sends questions as they are, and reads of the answers as little as has to be known.
type wireCodec struct{}

// Name is what other clients say, so that servers use the codec that they always use.
func (wireCodec) Name() string { return "proto" }

func (wireCodec) Marshal(v any) (mem.BufferSlice, error) {
	q, ok := v.(*question)
	if !ok {
		return nil, fmt.Errorf("a %T is not a question", v)
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
	a.err = read(wire.ReadOnlyData())
	return nil
}

// read returns nil for an answer that allows, whose status, field 1, has no code but 0; else the denial.
func read(wire []byte) error {
	for rest := wire; len(rest) > 0; {
		number, kind, tag := protowire.ConsumeTag(rest)
		if tag < 0 {
			return errors.New("the answer is not a CheckResponse")
		}
		size := protowire.ConsumeFieldValue(number, kind, rest[tag:])
		if size < 0 {
			return errors.New("the answer is not a CheckResponse")
		}
		if number == 1 && size > 1 { // not empty: the code is not 0, which is left out, or there is a message
			return explained(wire)
		}
		rest = rest[tag+size:]
	}
	return nil
}

// explained puts a denial in words.
func explained(wire []byte) error {
	var resp authv3.CheckResponse
	if err := proto.Unmarshal(wire, &resp); err != nil {
		return fmt.Errorf("the answer is not a CheckResponse: %w", err)
	}
	if resp.GetStatus().GetCode() == 0 {
		return nil
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
