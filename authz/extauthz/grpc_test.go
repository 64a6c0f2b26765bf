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

// serve has a checker answer on a real gRPC server, with another service beside it.
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
	out := typicalRequest()
	out.GetAttributes().GetRequest().GetHttp().Path = path
	return out
}

// TestAnswersStayApart asks at once about many paths, short and long: nobody gets what is in another's buffer.
func TestAnswersStayApart(t *testing.T) {
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

func TestOtherServicesSpeakProtobuf(t *testing.T) {
	resp, err := healthpb.NewHealthClient(serve(t, decide(echo))).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestInterceptorsAreHeeded(t *testing.T) {
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

// TestAMessageInPieces has gRPC hand over a message in more than one buffer, and use the buffers again.
func TestAMessageInPieces(t *testing.T) {
	raw := wire(t, requestFor("/a"))
	pieces := mem.BufferSlice{mem.SliceBuffer(raw[:10]), mem.SliceBuffer(raw[10:11]), mem.SliceBuffer(raw[11:])}
	for _, data := range []mem.BufferSlice{pieces, {mem.SliceBuffer(raw)}, nil} {
		want := string(data.Materialize())
		var q question
		if err := Codec().Unmarshal(data, &q); err != nil {
			t.Fatal(err)
		}
		for i := range data.Len() {
			raw[i] ^= 0xff
		}
		if q.message != want {
			t.Errorf("read %q, want %q", q.message, want)
		}
		copy(raw, want)
	}
}

// TestWhatIsRememberedDoesNotKeepTheMessage holds that the texts by which a check is remembered are not parts of a message
// with a body of megabytes.
func TestWhatIsRememberedDoesNotKeepTheMessage(t *testing.T) {
	message := string(wire(t, typicalRequest()))
	r := decode(message, Options{})
	for _, s := range []string{r.HTTP.ID, r.Source.Address.Socket.Address} {
		if isPartOf(s, message) {
			t.Errorf("%q is part of the message", s)
		}
	}
	if !isPartOf(r.HTTP.Path, message) {
		t.Error("the path is not part of the message: it has been copied for nothing")
	}
}
