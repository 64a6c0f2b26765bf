package extauthz

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// serve starts a real gRPC server with the checker and another service.
func serve(t *testing.T, c Checker, opt ...grpc.ServerOption) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(append(opt, grpc.ForceServerCodecV2(Codec()))...)
	Register(s, NewServer(c, Options{}, quiet()))
	healthpb.RegisterHealthServer(s, health.NewServer())
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) })
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		s.Stop()
		serving.Wait()
	})
	return conn
}

// echo denies with the path that it was asked about.
func echo(r *authz.Request) authz.Decision {
	return authz.Deny(authz.Answer{Status: 402, Reason: authz.ReasonQuotaExceeded, Body: r.HTTP.Path})
}

func requestFor(path string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: path},
	}}}
}

// TestServer_AnswersStayApart asks about many paths at once, short and long ones. No caller may get the content of another
// one's buffer.
func TestServer_AnswersStayApart(t *testing.T) {
	client := authv3.NewAuthorizationClient(serve(t, decide(echo)))
	var asking sync.WaitGroup
	for i := range 8 {
		asking.Go(func() {
			for j := range 100 {
				path := fmt.Sprintf("/%d/%d/%s", i, j, strings.Repeat("x", j*i*10))
				resp, err := client.Check(t.Context(), requestFor(path))
				if err != nil {
					t.Error(err)
					return
				}
				if got := resp.GetDeniedResponse().GetBody(); got != path {
					t.Errorf("asked about %.20q, told about %.20q", path, got)
				}
			}
		})
	}
	asking.Wait()
}

func TestCodec_OtherServicesSpeakProtobuf(t *testing.T) {
	resp, err := healthpb.NewHealthClient(serve(t, decide(echo))).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestServer_CallsInterceptors(t *testing.T) {
	var method string
	conn := serve(t, decide(echo), grpc.UnaryInterceptor(func(ctx context.Context, q any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		method = info.FullMethod
		return next(ctx, q)
	}))
	resp, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), requestFor("/a"))
	if err != nil || resp.GetDeniedResponse().GetBody() != "/a" || method != authv3.Authorization_Check_FullMethodName {
		t.Errorf("%v, %v, through %q", resp, err, method)
	}
}

// TestCodec_MessageInPieces passes a message in more than one buffer, and reuses the buffers as gRPC does.
func TestCodec_MessageInPieces(t *testing.T) {
	raw := marshal(t, requestFor("/a"))
	pieces := mem.BufferSlice{mem.SliceBuffer(raw[:10]), mem.SliceBuffer(raw[10:11]), mem.SliceBuffer(raw[11:])}
	for _, data := range []mem.BufferSlice{pieces, {mem.SliceBuffer(raw)}, nil} {
		want := string(data.Materialize())
		var in checkRequest
		if err := Codec().Unmarshal(data, &in); err != nil {
			t.Fatal(err)
		}
		for i := range data.Len() {
			raw[i] ^= 0xff
		}
		if in.message != want {
			t.Errorf("read %q, want %q", in.message, want)
		}
		copy(raw, want)
	}
}
