package envoy

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// standIn takes Tollkeeper's place: it answers as the test says, and records the checks.
type standIn struct {
	authv3.UnimplementedAuthorizationServer

	mu     sync.Mutex
	answer func(context.Context) (*authv3.CheckResponse, error)
	asked  []*authv3.CheckRequest
}

func (s *standIn) Check(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	s.mu.Lock()
	s.asked = append(s.asked, r)
	answer := s.answer
	s.mu.Unlock()
	return answer(ctx)
}

// say sets the answer from now on, and forgets the recorded checks.
func (s *standIn) say(resp *authv3.CheckResponse) {
	s.do(func(context.Context) (*authv3.CheckResponse, error) { return resp, nil })
}

func (s *standIn) do(answer func(context.Context) (*authv3.CheckResponse, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer, s.asked = answer, nil
}

// questions returns the checks since the answer was set.
func (s *standIn) questions() []*authv3.CheckRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*authv3.CheckRequest(nil), s.asked...)
}

// values returns the values of a header field in a check.
func values(r *authv3.CheckRequest, name string) []string {
	var out []string
	for _, h := range r.GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
		if h.GetKey() == name {
			out = append(out, string(h.GetRawValue()))
		}
	}
	return out
}

// fixture is an Envoy with the shipped configuration, between a stand-in and an upstream.
type fixture struct {
	*standIn
	*harness.Upstream
	addr  string
	proxy *harness.Proxy
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	s := &standIn{}
	s.say(&authv3.CheckResponse{Status: &status.Status{Code: int32(codes.PermissionDenied)}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}))
	authv3.RegisterAuthorizationServer(server, s)
	reporter := health.NewServer()
	reporter.SetServingStatus("envoy.service.auth.v3.Authorization", grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(server, reporter)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	up := startUpstream(t)
	proxy := startProxy(t, l.Addr().(*net.TCPAddr).Port, up.Port(), nil)
	return &fixture{standIn: s, Upstream: up, addr: proxy.Addr(), proxy: proxy}
}

func startUpstream(t *testing.T) *harness.Upstream {
	t.Helper()
	up, err := harness.StartUpstream()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = up.Close() })
	return up
}

// startProxy starts Envoy with envoy.yaml, after changes to its text if there are any. It logs Envoy's output when the test
// fails.
func startProxy(t *testing.T, tollkeeper, upstream int, change func(string) string) *harness.Proxy {
	t.Helper()
	return startLayout(t, harness.ProxyOptions{Layout: harness.Loopback, Tollkeeper: tollkeeper, Upstream: upstream}, change)
}

// startLayout does the same with the file of any layout.
func startLayout(t *testing.T, o harness.ProxyOptions, change func(string) string) *harness.Proxy {
	t.Helper()
	root, err := harness.ModuleRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	if o.Binary, err = harness.FindEnvoy(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	if o.Config, err = os.ReadFile(filepath.Join(root, "envoy", o.Layout.File)); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		o.Config = []byte(change(string(o.Config)))
	}
	p, err := harness.StartProxy(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Envoy wrote:\n%s", lastLines(p.Log(), 12))
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// allow is an answer that allows a request.
func allow(ok *authv3.OkHttpResponse) *authv3.CheckResponse {
	return &authv3.CheckResponse{Status: &status.Status{Code: int32(codes.OK)}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok}}
}

// deny is an answer that denies a request.
func deny(code typev3.StatusCode, body string, headers ...*corev3.HeaderValueOption) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: code}, Headers: headers, Body: body,
		}},
	}
}

// set is a header field that replaces those of its name.
func set(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header: &corev3.HeaderValue{Key: name, Value: value},
		//lint:ignore SA1019 some versions of Envoy read only this field
		Append:       wrapperspb.Bool(false),
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// add is a header field in addition to those of its name.
func add(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header: &corev3.HeaderValue{Key: name, Value: value},
		//lint:ignore SA1019 as above
		Append:       wrapperspb.Bool(true),
		AppendAction: corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD,
	}
}
