package server

import (
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/tollkeeper-authz/tollkeeper/authz/extauthz"
)

const (
	// maxCheckBytes is the largest check that is read: Envoy's largest headers and a body of several megabytes.
	maxCheckBytes = 8 << 20
	// handshakeGrace bounds the handshake of a new connection. A graceful stop waits for it, too.
	handshakeGrace = 5 * time.Second
	// ageGrace bounds how long checks may go on over a connection that is too old. Checks take far less.
	ageGrace = 10 * time.Second
	// A client that was silent for pingAfter is pinged, and disconnected if it does not answer within pingGrace.
	pingAfter, pingGrace = time.Minute, 10 * time.Second
	// How much a client may send before it is read: of one check, and over one connection. As long as these are not set, grpc-go
	// measures the connection to choose them: it answers nearly every check with a window update and a ping, which Envoy has to
	// read and to answer. That costs both sides more than the check's own work on the answer.
	streamWindow, connWindow = 1 << 20, 16 << 20
)

// grpcOptions returns the options of the server for checks, without TLS.
func grpcOptions(maxAge time.Duration) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(extauthz.Codec()),
		grpc.MaxRecvMsgSize(maxCheckBytes),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.WaitForHandlers(true), // so that no check outlives the stores that it uses
		// Evaluating a policy needs a deep stack. Workers keep theirs; a new goroutine for each check would grow one each time. There
		// are more than can run, for a check of a caller who was not seen for long waits for the disk.
		grpc.NumStreamWorkers(uint32(32 * runtime.GOMAXPROCS(0))),
		// Envoy pings more often than grpc-go allows by default, and would be disconnected.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: maxAge, MaxConnectionAgeGrace: ageGrace, Time: pingAfter, Timeout: pingGrace,
		}),
		grpc.ConnectionTimeout(handshakeGrace),
	}
}
