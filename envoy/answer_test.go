package envoy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"golang.org/x/net/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

func TestConfig_AllowRewritesTheRequest(t *testing.T) {
	f := newFixture(t)
	for _, http2 := range []bool{false, true} {
		f.say(allow(&authv3.OkHttpResponse{
			Headers:                 []*corev3.HeaderValueOption{set("x-tollkeeper-account", "acme"), set("x-tollkeeper-plan", "free")},
			HeadersToRemove:         []string{"x-api-key", "authorization", "x-tollkeeper-old"},
			QueryParametersToRemove: []string{"api_key"},
			ResponseHeadersToAdd:    []*corev3.HeaderValueOption{set("ratelimit", `"daily";r=9;t=60`), set("content-type", "text/ours")},
		}))
		f.Reset()
		r := get(t, httpClient(t, http2), f.addr, "/v1/things?a=1&api_key=secret&b=%2F", "x-api-key", "secret", "authorization", "Bearer secret")
		if r.StatusCode != 200 || r.Header.Get("Ratelimit") != `"daily";r=9;t=60` || r.Header.Get("Content-Type") != "text/ours" {
			t.Errorf("the client got %d %v", r.StatusCode, r.Header)
		}
		last, _ := f.Last()
		if last.URI != "/v1/things?a=1&b=%2F" {
			t.Errorf("the upstream was asked for %q", last.URI)
		}
		if a, p := last.Headers.Get("X-Tollkeeper-Account"), last.Headers.Get("X-Tollkeeper-Plan"); a != "acme" || p != "free" {
			t.Errorf("the upstream got the account %q and the plan %q", a, p)
		}
		if strings.Contains(r.body, "secret") {
			t.Errorf("the credential reached the upstream: %s", r.body)
		}
	}
}

func TestConfig_RefusesForbiddenMutations(t *testing.T) {
	f := newFixture(t)
	c := httpClient(t, false)
	broken := []*corev3.HeaderValueOption{set("x-tollkeeper-note", "a\r\nx-user: root")}
	for name, ok := range map[string]*authv3.OkHttpResponse{
		"a header of another name": {Headers: []*corev3.HeaderValueOption{set("x-user", "root")}},
		"the host":                 {Headers: []*corev3.HeaderValueOption{set(":authority", "other")}},
		"the method":               {Headers: []*corev3.HeaderValueOption{set(":method", "DELETE")}},
		"removing another header":  {HeadersToRemove: []string{"content-length"}},
		"a line break in a value":  {Headers: broken},
		"a line break in a reply":  {ResponseHeadersToAdd: broken},
	} {
		f.say(allow(ok))
		f.Reset()
		if r := get(t, c, f.addr, "/"); r.StatusCode != 500 || f.Count() != 0 {
			t.Errorf("%s: status %d, %d forwarded", name, r.StatusCode, f.Count())
		}
		if _, err := echo(t, dialGRPC(t, f.addr)); status.Code(err) != codes.Unknown {
			t.Errorf("%s, to a gRPC client: %v", name, err)
		}
	}
	f.say(deny(typev3.StatusCode_Forbidden, "", broken...))
	if r := get(t, c, f.addr, "/"); r.StatusCode != 500 || f.Count() != 0 {
		t.Errorf("a line break in a denial: status %d, %d forwarded", r.StatusCode, f.Count())
	}
}

// What Envoy makes of several values of one header depends on the direction.
func TestConfig_SeveralValuesOfOneHeader(t *testing.T) {
	f := newFixture(t)
	c := httpClient(t, false)
	options := map[string]func(name string) []*corev3.HeaderValueOption{
		"set, set": func(n string) []*corev3.HeaderValueOption {
			return []*corev3.HeaderValueOption{set(n, "1"), set(n, "2")}
		},
		"set, add": func(n string) []*corev3.HeaderValueOption {
			return []*corev3.HeaderValueOption{set(n, "1"), add(n, "2")}
		},
		"add, add": func(n string) []*corev3.HeaderValueOption {
			return []*corev3.HeaderValueOption{add(n, "1"), add(n, "2")}
		},
	}
	for _, row := range []struct {
		options                   string
		upstream, allowed, denied []string
	}{
		{"set, set", []string{"2"}, []string{"2"}, []string{"1", "2"}},
		{"set, add", []string{"1,2"}, []string{"1"}, []string{"1"}},
		{"add, add", nil, []string{"1", "2"}, nil},
	} {
		make := options[row.options]
		f.say(allow(&authv3.OkHttpResponse{Headers: make("x-tollkeeper-roles"), ResponseHeadersToAdd: make("set-cookie")}))
		allowed := get(t, c, f.addr, "/")
		last, _ := f.Last()
		f.say(deny(typev3.StatusCode_Forbidden, "", make("set-cookie")...))
		denied := get(t, c, f.addr, "/")
		for where, pair := range map[string][2][]string{
			"request to the upstream": {last.Headers["X-Tollkeeper-Roles"], row.upstream},
			"response when allowed":   {allowed.Header["Set-Cookie"], row.allowed},
			"response when denied":    {denied.Header["Set-Cookie"], row.denied},
		} {
			if !slices.Equal(pair[0], pair[1]) {
				t.Errorf("%s, %s: %q, want %q", row.options, where, pair[0], pair[1])
			}
		}
	}
}

func TestConfig_DenialReachesTheClient(t *testing.T) {
	f := newFixture(t)
	for _, http2 := range []bool{false, true} {
		f.say(deny(typev3.StatusCode_PaymentRequired, `{"code":"quota_exceeded"}`, set("x-authz-reason", "quota_exceeded"),
			set("content-type", "application/problem+json"), set("cache-control", "no-store"), set("retry-after", "60")))
		r := get(t, httpClient(t, http2), f.addr, "/")
		if r.StatusCode != 402 || r.body != `{"code":"quota_exceeded"}` {
			t.Errorf("status %d, body %q", r.StatusCode, r.body)
		}
		for name, want := range map[string]string{"X-Authz-Reason": "quota_exceeded", "Content-Type": "application/problem+json",
			"Cache-Control": "no-store", "Retry-After": "60"} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
	if f.Count() != 0 {
		t.Errorf("%d requests reached the upstream", f.Count())
	}
}

func TestConfig_DenialReachesGRPCClients(t *testing.T) {
	f := newFixture(t)
	conn := dialGRPC(t, f.addr)

	f.say(allow(&authv3.OkHttpResponse{}))
	if _, err := echo(t, conn); err != nil {
		t.Fatalf("an allowed call: %v", err)
	}
	f.Reset()
	for _, c := range []struct {
		status     typev3.StatusCode
		grpcStatus string
		want       codes.Code
	}{
		{typev3.StatusCode_PaymentRequired, "8", codes.ResourceExhausted},
		{typev3.StatusCode_Forbidden, "7", codes.PermissionDenied},
		{typev3.StatusCode_ServiceUnavailable, "14", codes.Unavailable},
		{typev3.StatusCode_PaymentRequired, "", codes.Unknown}, // why we send grpc-status
	} {
		headers := []*corev3.HeaderValueOption{set("x-authz-reason", "some_reason")}
		if c.grpcStatus != "" {
			headers = append(headers, set("grpc-status", c.grpcStatus))
		}
		f.say(deny(c.status, "no", headers...))
		trailer, err := echo(t, conn)
		if status.Code(err) != c.want || status.Convert(err).Message() != "no" {
			t.Errorf("%v with grpc-status %q: %v, want %v", c.status, c.grpcStatus, err, c.want)
		}
		if got := trailer.Get("x-authz-reason"); !slices.Equal(got, []string{"some_reason"}) {
			t.Errorf("reason in the trailers: %q", got)
		}
	}
	if f.Count() != 0 {
		t.Errorf("%d calls reached the upstream", f.Count())
	}
}

// echo makes a gRPC call and returns its trailers. The headers of an answer without a body count as trailers.
func echo(t *testing.T, conn *grpc.ClientConn, fields ...string) (metadata.MD, error) {
	t.Helper()
	var trailer metadata.MD
	ctx := metadata.AppendToOutgoingContext(patience(t), fields...)
	_, err := harness.Echo(ctx, conn, "hello", grpc.Trailer(&trailer))
	return trailer, err
}

func TestConfig_ChecksWebSockets(t *testing.T) {
	f := newFixture(t)
	f.say(deny(typev3.StatusCode_PaymentRequired, "pay", set("x-authz-reason", "key_missing")))
	if r := askForWebSocket(t, f.addr); r.StatusCode != 402 || r.Header.Get("X-Authz-Reason") != "key_missing" || r.body != "pay" {
		t.Errorf("refused upgrade: %d %v %q", r.StatusCode, r.Header, r.body)
	}
	if f.Count() != 0 {
		t.Fatal("the refused upgrade reached the upstream")
	}
	f.say(allow(&authv3.OkHttpResponse{}))
	if got := echoOverWebSocket(t, f.addr); got != "hello" {
		t.Errorf("the echo was %q", got)
	}
}

// askForWebSocket requests an upgrade, and expects it to be refused.
func askForWebSocket(t *testing.T, addr string, lines ...string) reply {
	t.Helper()
	// The connection header has to name the upgrade. exchange adds its own "close".
	return exchange(t, addr, append([]string{"GET /ws HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, lines...)...)
}

// echoOverWebSocket opens a WebSocket with header fields, given as name, value ..., sends a message and returns the answer.
func echoOverWebSocket(t *testing.T, addr string, fields ...string) string {
	t.Helper()
	config, err := websocket.NewConfig("ws://"+addr+"/ws", "http://"+addr)
	if err != nil {
		t.Fatal(err)
	}
	config.Header = http.Header{}
	for i := 0; i+1 < len(fields); i += 2 {
		config.Header.Add(fields[i], fields[i+1])
	}
	conn, err := config.DialContext(patience(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := websocket.Message.Send(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := websocket.Message.Receive(conn, &got); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return got
}

func TestConfig_DeniesWithoutAnAnswer(t *testing.T) {
	f := newFixture(t)
	c := httpClient(t, false)
	for name, answer := range map[string]func(context.Context) (*authv3.CheckResponse, error){
		"an error": func(context.Context) (*authv3.CheckResponse, error) {
			return nil, status.Error(codes.Internal, "broken")
		},
		"a denial by error": func(context.Context) (*authv3.CheckResponse, error) {
			return nil, status.Error(codes.PermissionDenied, "no")
		},
		"silence": func(ctx context.Context) (*authv3.CheckResponse, error) { <-ctx.Done(); return nil, ctx.Err() },
	} {
		f.do(answer)
		r := get(t, c, f.addr, "/")
		if r.StatusCode != 503 || r.body != "" {
			t.Errorf("%s: status %d, body %q", name, r.StatusCode, r.body)
		}
		if _, err := echo(t, dialGRPC(t, f.addr)); status.Code(err) != codes.Unavailable {
			t.Errorf("%s, to a gRPC client: %v", name, err)
		}
	}
	if f.Count() != 0 {
		t.Errorf("%d requests reached the upstream", f.Count())
	}
	stats, err := f.proxy.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := stats["http.edge.ext_authz.tollkeeper.error"]; n != 6 {
		t.Errorf("Envoy counted %d errors, want 6", n)
	}
	if n := stats["http.edge.ext_authz.tollkeeper.failure_mode_allowed"]; n != 0 {
		t.Errorf("Envoy allowed %d requests in spite of errors", n)
	}
}

// Envoy cancels the check of a client that disconnects.
func TestConfig_DisconnectCancelsTheCheck(t *testing.T) {
	f := newFixture(t)
	asked, ended := make(chan struct{}), make(chan struct{})
	f.do(func(ctx context.Context) (*authv3.CheckResponse, error) {
		close(asked)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	})
	began := time.Now()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-asked
	_ = c.Close()
	<-ended
	if took := time.Since(began); took > 250*time.Millisecond { // Envoy's own limit is 300
		t.Logf("the check ended after %v, perhaps by Envoy's own limit", took)
	}
	if n := f.Count(); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

func TestConfig_DeniesWithoutTollkeeper(t *testing.T) {
	up := startUpstream(t)
	free, err := harness.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	p := startProxy(t, free[0], up.Port(), nil)
	if r := get(t, httpClient(t, false), p.Addr(), "/"); r.StatusCode != 503 || up.Count() != 0 {
		t.Errorf("status %d, %d forwarded", r.StatusCode, up.Count())
	}
}
