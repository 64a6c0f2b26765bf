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

// How many checks are under way at a time, and over how many connections.
const (
	inFlight    = 16
	connections = 2
)

// checks asks an authorizer as Envoy does, with another request each time.
func checks(ctx context.Context, port int, l *load, s span, at func() error) (*taking, error) {
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
		a, buf := answer{reason: []byte(l.reason)}, make([]byte, 0, keyLen)
		calls[i] = func(ctx context.Context, now time.Time) error {
			q := questions[rnd.IntN(len(questions))]
			q.renew(rnd, now, l.next(buf, rnd))
			if err := conn.Invoke(ctx, authv3.Authorization_Check_FullMethodName, q, &a); err != nil {
				return err
			}
			return a.err
		}
	}
	if err := meet(ctx, conns, l); err != nil {
		return nil, err
	}
	return drive(ctx, s, calls, at)
}

// meet asks once about every key that will be asked about. A key that nobody has asked about for long costs more than
// others, and a server that has just started knows none: what is compared is what goes on for hours.
func meet(ctx context.Context, conns []*grpc.ClientConn, l *load) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range inFlight {
		g.Go(func() error {
			questions, err := newQuestions()
			if err != nil {
				return err
			}
			conn, rnd := conns[i%len(conns)], rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
			for n := i; n < l.callers; n += inFlight {
				var a answer
				q := questions[0]
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

// answer is what is read of a CheckResponse: nil if it is the one that is wanted.
type answer struct {
	reason []byte // of the denial that is wanted; empty: a yes is
	err    error
}

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
	a.err = a.judge(wire.ReadOnlyData())
	return nil
}

func (a *answer) judge(wire []byte) error {
	no, err := denied(wire)
	switch {
	case err != nil:
		return err
	case no && (len(a.reason) == 0 || !bytes.Contains(wire, a.reason)):
		return explained(wire)
	case !no && len(a.reason) > 0:
		return denial("allowed")
	}
	return nil
}

// denied reports whether an answer denies: one that allows has no code but 0 in its status, field 1.
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
		if number == 1 && size > 1 { // not empty: the code is not 0, which is left out, or there is a message
			return true, nil
		}
		rest = rest[tag+size:]
	}
	return false, nil
}

var errNoAnswer = errors.New("the answer is not a CheckResponse")

// explained puts a denial in words.
func explained(wire []byte) error {
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
