package server

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
)

// TestGRPC_PingsAndAge talks to a server as Envoy does between requests: every ten seconds it asks whether the connection still
// works. It has to go on doing so until it is old, and then be closed in good order.
func TestGRPC_PingsAndAge(t *testing.T) {
	const age = 10 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		l := bufconn.Listen(1 << 16)
		g := grpc.NewServer(grpcOptions(age)...)
		served := make(chan error, 1)
		go func() { served <- g.Serve(l) }()
		conn, err := l.DialContext(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		code, last, pings := pingUntilClosed(t, conn)
		took := time.Since(began)
		if code != http2.ErrCodeNo || last == 0 {
			t.Errorf("the connection was closed with %v, after stream %d", code, last)
		}
		if took < age*9/10 || took > age*11/10+ageGrace || pings < 50 {
			t.Errorf("closed after %v and %d pings, want %v", took, pings, age)
		}
		_ = conn.Close()
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// pingUntilClosed returns how the server closed the connection, and how many pings it answered before.
func pingUntilClosed(t *testing.T, conn net.Conn) (code http2.ErrCode, last uint32, answered int) {
	t.Helper()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	frames := http2.NewFramer(conn, conn)
	if err := frames.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	defer func() { <-closed }()
	over := make(chan struct{})
	go func() {
		defer close(closed)
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = frames.WritePing(false, [8]byte{1})
			case <-over:
				return
			}
		}
	}()
	defer close(over)
	for {
		frame, err := frames.ReadFrame()
		if err != nil {
			t.Fatalf("without a word: %v", err)
		}
		switch f := frame.(type) {
		case *http2.PingFrame:
			if answered++; answered > 1000 {
				t.Fatal("it is never closed")
			}
		case *http2.GoAwayFrame:
			return f.ErrCode, f.LastStreamID, answered
		}
	}
}
