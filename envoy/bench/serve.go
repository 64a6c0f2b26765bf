package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
)

// serve runs this program as one of the rivals. It prints its port, and serves until its standard input ends, which also
// happens when the parent process dies.
func serve(ctx context.Context, kind, data string) error {
	signal.Ignore(os.Interrupt) // Ctrl-C reaches all processes of the terminal, and the parent stops its rivals
	var authorizer authv3.AuthorizationServer
	switch kind {
	case baseline:
		authorizer = noop{allow()}
	case sameAnswer:
		authorizer = noop{allowAsTollkeeper()}
	case givenAnswers, givenAnswersWindows:
		var err error
		if authorizer, err = readAnswers(data); err != nil {
			return err
		}
	case "opa":
		var err error
		if authorizer, err = newOPA(ctx); err != nil {
			return err
		}
	case keysAsData:
		var err error
		if authorizer, err = newKeysAsData(ctx, data); err != nil {
			return err
		}
	default:
		return fmt.Errorf("unknown rival %q", kind)
	}
	// The options are those of Tollkeeper, in authz/server, except for the windows of HTTP/2: the baseline has grpc-go's own.
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(8 << 20),
		grpc.WaitForHandlers(true),
		grpc.NumStreamWorkers(uint32(4 * runtime.GOMAXPROCS(0))),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
	if kind == givenAnswersWindows {
		options = append(options, grpc.StaticStreamWindowSize(1<<20), grpc.StaticConnWindowSize(16<<20))
	}
	s := grpc.NewServer(options...)
	authv3.RegisterAuthorizationServer(s, authorizer)
	h := health.NewServer() // for Envoy's health checks
	h.SetServingStatus(authv3.Authorization_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(s, h)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, s.Stop)()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		s.Stop()
	}()
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	return s.Serve(l)
}

// noop allows everything at once. Its cost is that of gRPC and of Envoy's messages.
type noop struct{ answer *authv3.CheckResponse }

func (n noop) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return n.answer, nil
}

func allow() *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status:       &statuspb.Status{},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}},
	}
}

// allowAsTollkeeper is an answer like Tollkeeper's where no route applies: with identity headers, the key removed and RateLimit
// fields.
func allowAsTollkeeper() *authv3.CheckResponse {
	set := func(name, value string) *corev3.HeaderValueOption {
		return &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: name, Value: value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}
	}
	resp := allow()
	ok := resp.GetOkResponse()
	ok.Headers = []*corev3.HeaderValueOption{
		set("x-tollkeeper-key-id", "key_4fJ0aYb2mQ7nT1xRw9Lc"), set("x-tollkeeper-account", "account-000001"), set("x-tollkeeper-plan", plan),
	}
	ok.HeadersToRemove = []string{"x-api-key"}
	ok.ResponseHeadersToAdd = []*corev3.HeaderValueOption{
		set("ratelimit-policy", `"rate";q=1000000000;w=60`), set("ratelimit", `"rate";r=999999937;t=33`),
	}
	return resp
}
