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

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
)

// serve is what this program does when it is started as one of the rivals. It prints its port, and serves until its
// standard input ends: with whoever started it, however that one ends.
func serve(ctx context.Context, kind string) error {
	signal.Ignore(os.Interrupt) // Ctrl-C reaches all processes of the terminal; ours are stopped in order
	var authorizer authv3.AuthorizationServer
	switch kind {
	case "noop":
		authorizer = noop{}
	case "opa":
		var err error
		if authorizer, err = newOPA(ctx); err != nil {
			return err
		}
	default:
		return fmt.Errorf("there is no rival %q", kind)
	}
	// The options are those of Tollkeeper, in authz/server.
	s := grpc.NewServer(
		grpc.MaxRecvMsgSize(8<<20),
		grpc.WaitForHandlers(true),
		grpc.NumStreamWorkers(uint32(4*runtime.GOMAXPROCS(0))),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	authv3.RegisterAuthorizationServer(s, authorizer)
	h := health.NewServer() // Envoy asks
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

// noop allows everything at once. What it costs is what gRPC and Envoy's message cost.
type noop struct {
	authv3.UnimplementedAuthorizationServer
}

func (noop) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return allow(), nil
}

func allow() *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status:       &statuspb.Status{},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}},
	}
}
