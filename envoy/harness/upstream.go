package harness

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/websocket"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// EchoMethod is the upstream's gRPC method. It takes a google.protobuf.StringValue and returns it.
const EchoMethod = "/tollkeeper.test.Echo/Echo"

// Seen is a request as the upstream received it.
type Seen struct {
	Method  string      `json:"method"`
	URI     string      `json:"uri"` // path and query, not decoded
	Proto   string      `json:"proto"`
	Host    string      `json:"host"`
	Headers http.Header `json:"headers"`
}

// Upstream is a service that records every request. On one port it speaks HTTP/1.1, HTTP/2 without TLS and gRPC. It
// answers a request with what it saw, as JSON, and echoes gRPC calls and WebSocket messages. Its methods may be used
// concurrently.
type Upstream struct {
	server   *http.Server
	listener net.Listener
	done     chan struct{}

	mu   sync.Mutex
	seen []Seen
}

// StartUpstream starts an upstream. The caller closes it.
func StartUpstream() (*Upstream, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u := &Upstream{listener: l, done: make(chan struct{})}
	g := grpc.NewServer()
	g.RegisterService(echoService(), nil)
	sockets := websocket.Server{Handler: func(c *websocket.Conn) { _, _ = io.Copy(c, c) }}

	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	u.server = &http.Server{
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			u.record(r)
			switch {
			case r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
				g.ServeHTTP(w, r)
			case strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
				sockets.ServeHTTP(w, r)
			default:
				u.answer(w, r)
			}
		}),
	}
	go func() {
		defer close(u.done)
		_ = u.server.Serve(l) // until Close
	}()
	return u, nil
}

func (u *Upstream) record(r *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = append(u.seen, seen(r))
}

func seen(r *http.Request) Seen {
	return Seen{Method: r.Method, URI: r.RequestURI, Proto: r.Proto, Host: r.Host, Headers: r.Header.Clone()}
}

func (u *Upstream) answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(seen(r)) // it fails only when the client has gone
}

// Port is the upstream's port on 127.0.0.1.
func (u *Upstream) Port() int { return u.listener.Addr().(*net.TCPAddr).Port }

// Requests returns the requests since the last Reset, in their order.
func (u *Upstream) Requests() []Seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]Seen(nil), u.seen...)
}

// Count returns the number of requests since the last Reset.
func (u *Upstream) Count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.seen)
}

// Last returns the latest request since the last Reset, and false if there was none.
func (u *Upstream) Last() (Seen, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.seen) == 0 {
		return Seen{}, false
	}
	return u.seen[len(u.seen)-1], true
}

// Reset forgets all requests.
func (u *Upstream) Reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = nil
}

// Close stops the upstream and cuts its connections.
func (u *Upstream) Close() error {
	err := u.server.Close()
	<-u.done
	return err
}

// echoService is written by hand, so that no code has to be generated for it.
func echoService() *grpc.ServiceDesc {
	service, method, _ := strings.Cut(strings.TrimPrefix(EchoMethod, "/"), "/")
	return &grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: method,
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				in := new(wrapperspb.StringValue)
				return in, decode(in)
			},
		}},
	}
}

// Echo calls the upstream's gRPC method through a connection.
func Echo(ctx context.Context, conn grpc.ClientConnInterface, text string, opts ...grpc.CallOption) (string, error) {
	out := new(wrapperspb.StringValue)
	if err := conn.Invoke(ctx, EchoMethod, wrapperspb.String(text), out, opts...); err != nil {
		return "", err
	}
	if out.GetValue() != text {
		return "", errors.New("the echo differs")
	}
	return out.GetValue(), nil
}
