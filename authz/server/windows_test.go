package server

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
)

// TestGRPC_SaysNothingButAnswers counts the frames that make Envoy work and carry no answer. By default grpc-go sends a window
// update and a ping for nearly every check.
func TestGRPC_SaysNothingButAnswers(t *testing.T) {
	l := bufconn.Listen(1 << 16)
	g := grpc.NewServer(grpcOptions(time.Hour)...)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	defer func() {
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	conn, err := l.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	frames := http2.NewFramer(conn, conn)
	if err := frames.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	const checks = 20
	needless := 0
	for i := range uint32(checks) {
		needless += callOnce(t, frames, 2*i+1)
	}
	if needless != 1 {
		t.Errorf("%d window updates and pings, want the one that sets the window of the connection", needless)
	}
}

// callOnce makes a call with a kilobyte of data, which nobody serves, and returns how many window updates and pings come before
// the end of its answer.
func callOnce(t *testing.T, frames *http2.Framer, stream uint32) (needless int) {
	t.Helper()
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/none/None"}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := frames.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head.Bytes(), EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	if err := frames.WriteData(stream, true, make([]byte, 1024)); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := frames.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.WindowUpdateFrame:
			needless++
		case *http2.PingFrame:
			needless++
			if err := frames.WritePing(true, f.Data); err != nil {
				t.Fatal(err)
			}
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if err := frames.WriteSettingsAck(); err != nil {
					t.Fatal(err)
				}
			}
		case *http2.HeadersFrame:
			if f.StreamID == stream && f.StreamEnded() {
				return needless
			}
		case *http2.GoAwayFrame:
			t.Fatal(fmt.Errorf("closed with %v", f.ErrCode))
		}
	}
}
