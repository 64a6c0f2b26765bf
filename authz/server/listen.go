package server

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/extauthz"
	"github.com/tollkeeper-authz/tollkeeper/authz/telemetry"
	"github.com/tollkeeper-authz/tollkeeper/authz/tlsfiles"
)

const (
	// maxCheckBytes is the largest check that is read: Envoy's largest headers and a body of several megabytes.
	maxCheckBytes = 8 << 20
	// handshakeGrace bounds how long a new connection may take to say what it is. An orderly end waits for it, too.
	handshakeGrace = 5 * time.Second
	// ageGrace is what checks under way have left when their connection is old: many times longer than any takes.
	ageGrace = 10 * time.Second
	// A client that has been silent for pingAfter is asked whether it is still there, and forgotten after pingGrace.
	pingAfter, pingGrace = time.Minute, 10 * time.Second
	tlsPollEvery         = time.Second
	// refusalsEvery is how often a line may be logged about clients that were turned away in the handshake.
	refusalsEvery = 10 * time.Second
)

// openGRPC makes the server for checks, and takes its port.
func (s *Server) openGRPC(registry *prometheus.Registry) error {
	s.leaving = newLeaving()
	options := append(grpcOptions(s.cfg.Listen.MaxConnectionAge.Duration), grpc.StreamInterceptor(s.leaving.interceptor))
	if s.tls != nil {
		options = append(options, grpc.Creds(s.credentials(registry)))
	}
	var err error
	if s.grpcL, err = listenGRPC(s.cfg.Listen.GRPC); err != nil {
		return err
	}
	s.grpc = grpc.NewServer(options...)
	s.health = health.NewServer()
	s.setHealth(healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(s.grpc, s.health)
	extauthz.Register(s.grpc, extauthz.NewServer(s.checker, s.decodeOptions, s.log))
	return nil
}

// grpcOptions are what a server for checks is like, but for TLS.
func grpcOptions(maxAge time.Duration) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(extauthz.Codec()),
		grpc.MaxRecvMsgSize(maxCheckBytes),
		grpc.WaitForHandlers(true), // no check outlives what it uses
		// Evaluating a policy needs a deep stack. Workers keep theirs, where a goroutine a check would grow its own anew.
		grpc.NumStreamWorkers(uint32(4 * runtime.GOMAXPROCS(0))),
		// Envoy pings more often than grpc-go allows by default, and would be sent away.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: maxAge, MaxConnectionAgeGrace: ageGrace, Time: pingAfter, Timeout: pingGrace,
		}),
		grpc.ConnectionTimeout(handshakeGrace),
	}
}

// openTLS reads the files of the TLS section, if there is to be TLS. With an error comes the field that it is about.
func openTLS(c *config.TLS, log *slog.Logger) (_ *tlsfiles.Files, field string, err error) {
	if !c.On() {
		return nil, "", nil
	}
	files, err := tlsfiles.Open(tlsfiles.Options{
		CertFile: c.CertFile, KeyFile: c.KeyFile, ClientCAFile: c.ClientCAFile, ClientNames: c.ClientNames, MinVersion: c.MinVersion,
		Now: time.Now, Log: log,
	})
	if err != nil {
		name, text, _ := strings.Cut(err.Error(), ": ")
		return nil, "tls." + name, errors.New(text)
	}
	return files, "", nil
}

// credentials are those of the files, with metrics and a word about those who do not get through.
func (s *Server) credentials(registry *prometheus.Registry) credentials.TransportCredentials {
	turned := &refusals{log: s.log}
	telemetry.WatchTLS(registry, func() telemetry.TLS {
		f := s.tls.Status()
		return telemetry.TLS{
			CertificateEnds: f.CertificateEnds, ClientCAEnds: f.ClientCAEnds, Reloads: f.Reloads, Faults: f.Faults,
			Faulty: f.Fault != "", Refused: turned.total(),
		}
	})
	return handshakes{credentials.NewTLS(s.tls.Config()), turned}
}

// handshakes are TLS with a word about those who do not get through, which gRPC keeps to itself.
type handshakes struct {
	credentials.TransportCredentials
	turned *refusals
}

func (h handshakes) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := h.TransportCredentials.ServerHandshake(c)
	// Probes and load balancers open a connection and close it again, to see whether they can.
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		h.turned.add(c.RemoteAddr(), err)
	}
	return conn, info, err
}

func (h handshakes) Clone() credentials.TransportCredentials {
	return handshakes{h.TransportCredentials.Clone(), h.turned}
}

// refusals are clients that did not get through the handshake. They are strangers, who must not be able to fill the log.
type refusals struct {
	log *slog.Logger

	mu     sync.Mutex
	n      uint64
	untold int
	last   time.Time
}

func (r *refusals) add(from net.Addr, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	if now := time.Now(); now.Sub(r.last) >= refusalsEvery {
		r.log.Warn("client refused in the TLS handshake", "from", from.String(), "error", err, "not_logged_before", r.untold)
		r.last, r.untold = now, 0
		return
	}
	r.untold++
}

func (r *refusals) total() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// openHealth opens the port for health alone, if there is to be one.
func (s *Server) openHealth() (err error) {
	if s.cfg.Listen.Health == "" {
		return nil
	}
	if s.healthL, err = listen("listen.health", s.cfg.Listen.Health); err != nil {
		return err
	}
	s.probes = grpc.NewServer(grpc.ConnectionTimeout(handshakeGrace), grpc.MaxRecvMsgSize(4<<10), grpc.MaxConcurrentStreams(16))
	healthpb.RegisterHealthServer(s.probes, s.health)
	return nil
}

// openMetrics opens the port for metrics alone, if there is to be one.
func (s *Server) openMetrics(registry *prometheus.Registry) (err error) {
	if s.cfg.Listen.Metrics == "" {
		return nil
	}
	if s.metricsL, err = listen("listen.metrics", s.cfg.Listen.Metrics); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	s.scrapes = s.httpServer(mux)
	return nil
}

func listen(field, address string) (net.Listener, error) {
	l, err := listenTCP(address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return l, nil
}

func listenTCP(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is in use by another process: stop that one or choose another port", address)
	}
	return l, err
}

func listenGRPC(address string) (net.Listener, error) {
	path, ok := strings.CutPrefix(address, config.UnixPrefix)
	if !ok {
		return listen("listen.grpc", address)
	}
	l, err := listenUnix(path)
	if err != nil {
		return nil, fmt.Errorf("listen.grpc: %w", err)
	}
	return l, nil
}

// socketMode lets the owner and the group ask. To connect takes the right to write.
const socketMode = 0o660

// socket is a listener on a Unix socket.
type socket struct {
	net.Listener
	path string
	file os.FileInfo
	gone sync.Once
}

// listenUnix listens on a socket file, in the place of one on which nobody listens any more. The file appears with its
// mode: it is made in a folder that nobody else can enter.
func listenUnix(path string) (_ net.Listener, err error) {
	if err := vacant(path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".tk-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	tmp := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by then it has another name
	s := &socket{Listener: l, path: path}
	if err = os.Chmod(tmp, socketMode); err == nil {
		if err = os.Rename(tmp, path); err == nil {
			s.file, err = os.Lstat(path)
		}
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return s, nil
}

// vacant is an error if something is at path that must not be replaced.
func vacant(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is there and is no socket: move it away or choose another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("%s is in use by another process: stop that one or choose another path", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return nil
}

func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close takes the file away too, unless somebody else has put his own there.
func (s *socket) Close() error {
	s.gone.Do(func() { // once: a successor's file may have got the number of ours
		if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.file) {
			_ = os.Remove(s.path)
		}
	})
	return s.Listener.Close()
}
