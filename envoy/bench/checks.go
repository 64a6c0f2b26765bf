package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	inFlight  = 16 // checks at a time
	connCount = 2  // connections over which they are spread
)

// connections are those of a client to an authorizer.
type connections []*grpc.ClientConn

func dial(port int) (connections, error) {
	conns := make(connections, connCount)
	for i := range conns {
		conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///127.0.0.1:%d", port),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wireCodec{})),
			grpc.WithDisableRetry()) // retries would keep copies of requests
		if err != nil {
			return nil, errors.Join(err, conns[:i].close())
		}
		conns[i] = conn
	}
	return conns, nil
}

func (c connections) close() error {
	var err error
	for _, conn := range c {
		err = errors.Join(err, conn.Close())
	}
	return err
}

// checks sends an authorizer checks as Envoy does, each for another request, and measures them.
func checks(ctx context.Context, port int, l *load, turn uint64, s span, at func() error) (_ *measurement, err error) {
	conns, err := dial(port)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conns.close()) }()
	calls := make([]call, inFlight)
	for i := range calls {
		asker, err := l.asker(seed{turn, uint64(i)})
		if err != nil {
			return nil, err
		}
		conn, a := conns[i%len(conns)], new(answer)
		calls[i] = func(ctx context.Context, now time.Time) error {
			q, reason := asker.next(now)
			a.expect(reason, l.judged)
			if err := conn.Invoke(ctx, authv3.Authorization_Check_FullMethodName, q, a); err != nil {
				return err
			}
			return a.err
		}
	}
	if !l.cold {
		// The first check of a key costs more than later ones, and a load with busy callers is about a server that has run for hours.
		if _, err := conns.each(ctx, l, turn, longestVisit); err != nil {
			return nil, err
		}
	}
	return drive(ctx, s, calls, at)
}

// each sends one check for each caller of the load, all of which should be allowed. It stops when that takes longer than it may.
func (c connections) each(ctx context.Context, l *load, turn uint64, longest time.Duration) (*measurement, error) {
	parts := make([]measurement, inFlight)
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for i := range parts {
		g.Go(func() error {
			asker, err := l.asker(seed{turn, inFlight + uint64(i)})
			if err != nil {
				return err
			}
			var a answer
			for n, now := i, began; n < l.callers && now.Sub(began) < longest; n += inFlight {
				if err := c[i%len(c)].Invoke(ctx, authv3.Authorization_Check_FullMethodName, asker.of(n, now), &a); err != nil {
					return err
				}
				answered := time.Now()
				if err := parts[i].count(a.err, answered.Sub(now), true); err != nil {
					return err
				}
				now = answered
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return sum(parts, time.Since(began))
}

// alone sends one check for each of a number of callers of the load, one at a time. None of them is among the callers of a
// smaller load.
func (c connections) alone(ctx context.Context, l *load, turn uint64, callers int) (*measurement, error) {
	asker, err := l.asker(seed{turn, 2 * inFlight})
	if err != nil {
		return nil, err
	}
	stride := max(1, l.callers/callers)
	parts := make([]measurement, 1)
	var a answer
	began := time.Now()
	for n := stride / 2; n < l.callers; n += stride {
		asked := time.Now()
		if err := c[0].Invoke(ctx, authv3.Authorization_Check_FullMethodName, asker.of(n, asked), &a); err != nil {
			return nil, err
		}
		if err := parts[0].count(a.err, time.Since(asked), true); err != nil {
			return nil, err
		}
	}
	return sum(parts, time.Since(began))
}

// answer compares a CheckResponse with the one that is expected.
type answer struct {
	denial bool   // whether one is expected
	reason []byte // of the expected denial; empty: any
	err    error  // nil: the answer is as expected
}

// expect sets what is expected: a denial with that reason or, if it is empty, an allow, as far as the authorizer can tell.
func (a *answer) expect(reason string, j judgement) {
	a.denial, a.reason = reason != "" && j != allAllow, a.reason[:0]
	if j == byReason {
		a.reason = append(a.reason, reason...)
	}
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
	case no && (!a.denial || !bytes.Contains(wire, a.reason)):
		return denialOf(wire)
	case !no && a.denial:
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
