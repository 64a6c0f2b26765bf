package server

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/credentials"

	"github.com/tollkeeper-authz/tollkeeper/authz/telemetry"
)

// refusalsEvery is the shortest time between two log lines about clients that were refused in the handshake.
const refusalsEvery = 10 * time.Second

// credentials makes gRPC credentials of the TLS files, and counts and logs refused clients.
func (s *Server) credentials(registry *prometheus.Registry) credentials.TransportCredentials {
	refused := &refusals{log: s.log}
	telemetry.WatchTLS(registry, func() telemetry.TLS {
		f := s.tls.Status()
		return telemetry.TLS{
			CertificateEnds: f.CertificateEnds, ClientCAEnds: f.ClientCAEnds, Reloads: f.Reloads, Faults: f.Faults,
			Faulty: f.Fault != "", Refused: refused.total(),
		}
	})
	return reportingCredentials{credentials.NewTLS(s.tls.Config()), refused}
}

// reportingCredentials report refused clients, about which gRPC itself is silent.
type reportingCredentials struct {
	credentials.TransportCredentials
	refused *refusals
}

func (c reportingCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := c.TransportCredentials.ServerHandshake(conn)
	// Probes and load balancers open a connection and close it again at once, to see whether the port is open.
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		c.refused.add(conn.RemoteAddr(), err)
	}
	return secured, info, err
}

func (c reportingCredentials) Clone() credentials.TransportCredentials {
	return reportingCredentials{c.TransportCredentials.Clone(), c.refused}
}

// refusals counts clients that were refused in the handshake and logs some of them. Anybody who reaches the port can cause
// refusals, so they must not fill the log.
type refusals struct {
	log *slog.Logger

	mu       sync.Mutex
	n        uint64
	unlogged int // since the last line
	last     time.Time
}

func (r *refusals) add(from net.Addr, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	if now := time.Now(); now.Sub(r.last) >= refusalsEvery {
		r.log.Warn("client refused in the TLS handshake", "from", from.String(), "error", err, "not_logged_before", r.unlogged)
		r.last, r.unlogged = now, 0
		return
	}
	r.unlogged++
}

func (r *refusals) total() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}
