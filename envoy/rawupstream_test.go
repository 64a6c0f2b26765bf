package envoy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// rawUpstream is a service that takes every request as it comes, also those that Go's server would refuse. It answers each
// with 200, on HTTP/1.1 and on HTTP/2 without TLS, and remembers what it saw.
type rawUpstream struct {
	listener net.Listener
	served   sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]bool
	seen []harness.Seen
	errs []error
}

func startRawUpstream(t *testing.T) *rawUpstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &rawUpstream{listener: l, open: make(map[net.Conn]bool)}
	u.served.Go(u.accept)
	t.Cleanup(func() { u.close(t) })
	return u
}

func (u *rawUpstream) accept() {
	for {
		conn, err := u.listener.Accept()
		if err != nil {
			return // closed
		}
		u.mu.Lock()
		u.open[conn] = true
		u.mu.Unlock()
		u.served.Go(func() {
			err := u.serve(conn)
			conn.Close()
			u.mu.Lock()
			defer u.mu.Unlock()
			delete(u.open, conn)
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				u.errs = append(u.errs, err)
			}
		})
	}
}

func (u *rawUpstream) close(t *testing.T) {
	_ = u.listener.Close()
	u.mu.Lock()
	for conn := range u.open {
		_ = conn.Close()
	}
	u.mu.Unlock()
	u.served.Wait()
	if err := errors.Join(u.errs...); err != nil && !strings.Contains(err.Error(), "connection reset") {
		t.Errorf("the upstream: %v", err)
	}
}

func (u *rawUpstream) port() int { return u.listener.Addr().(*net.TCPAddr).Port }

// take returns what was seen since the last call.
func (u *rawUpstream) take() []harness.Seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := u.seen
	u.seen = nil
	return out
}

func (u *rawUpstream) record(s harness.Seen) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = append(u.seen, s)
}

func (u *rawUpstream) serve(conn net.Conn) error {
	in := bufio.NewReader(conn)
	if start, err := in.Peek(len(http2.ClientPreface)); err == nil && string(start) == http2.ClientPreface {
		_, _ = in.Discard(len(start))
		return u.serveHTTP2(conn, in)
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		method, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		end := strings.LastIndex(rest, " ")
		if end < 0 {
			return fmt.Errorf("not a request line: %q", line)
		}
		header, err := textproto.NewReader(in).ReadMIMEHeader()
		if err != nil {
			return err
		}
		fields := http.Header(header)
		u.record(harness.Seen{Method: method, URI: rest[:end], Proto: rest[end+1:], Host: fields.Get("Host"), Headers: fields})
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
			return err
		}
	}
}

func (u *rawUpstream) serveHTTP2(conn net.Conn, in io.Reader) error {
	framer := newFramer(conn)
	reading := http2.NewFramer(nil, in)
	reading.ReadMetaHeaders, reading.MaxHeaderListSize = framer.ReadMetaHeaders, framer.MaxHeaderListSize
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	for {
		frame, err := reading.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = framer.WritePing(true, f.Data)
			}
		case *http2.MetaHeadersFrame:
			seen := harness.Seen{
				Method: f.PseudoValue("method"), URI: f.PseudoValue("path"), Host: f.PseudoValue("authority"), Proto: "HTTP/2.0", Headers: make(http.Header),
			}
			for _, field := range f.RegularFields() {
				seen.Headers.Add(field.Name, field.Value)
			}
			u.record(seen)
			err = writeFields(framer, f.StreamID, [][2]string{{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "0"}}, true)
		}
		if err != nil {
			return err
		}
	}
}
