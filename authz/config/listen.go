package config

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/tlsfiles"
)

// Listen is where the server can be reached.
type Listen struct {
	// GRPC is the address for Envoy's checks: host:port, or unix:/path for a socket, which its owner and group can use
	// (mode 0660). Unless TLS is configured, keep it on loopback, a socket, or in a trusted network: whoever reaches it can
	// try out keys and use up quotas.
	GRPC string `yaml:"grpc" env:"GRPC"`
	// Admin is the address for the CLI, the admin API and metrics. It needs the admin token.
	Admin string `yaml:"admin" env:"ADMIN"`
	// Events is the address at which others say whose tokens are revoked: RFC 7009, OpenID back-channel logout and Shared
	// Signals. There is no TLS on it: put a proxy with TLS before it. Empty: there is none.
	Events string `yaml:"events" env:"EVENTS"`
	// Health is an address for gRPC health and nothing else, without TLS: for Kubernetes, whose probes know no TLS. The
	// gRPC address answers the same question. Empty: there is none.
	Health string `yaml:"health" env:"HEALTH"`
	// Metrics is an address for GET /metrics and nothing else, over HTTP without TLS and without a token. Empty: there is none.
	Metrics string `yaml:"metrics" env:"METRICS"`
	// MaxConnectionAge is after what time, give or take a tenth, a connection for checks is closed in good order, so that
	// connections spread over new replicas. No check is lost by it. 0: never.
	MaxConnectionAge Duration `yaml:"max_connection_age" env:"MAX_CONNECTION_AGE"`
}

// TLS is that of listen.grpc. Without any field there is none. The files are read again within seconds of a change; if the
// new ones cannot be used, the old ones stay, which is logged, and is tollkeeper_tls_fault in the metrics.
type TLS struct {
	// CertFile holds the server's certificate and the chain above it, KeyFile its key: PEM.
	CertFile string `yaml:"cert_file" env:"CERT_FILE"`
	KeyFile  string `yaml:"key_file" env:"KEY_FILE"`
	// ClientCAFile holds the CAs, of which a client has to show a certificate. Empty: clients need none.
	ClientCAFile string `yaml:"client_ca_file" env:"CLIENT_CA_FILE"`
	// ClientNames are those of whom a client's certificate has to name one, as URI or DNS name (SAN), to the letter. Empty:
	// every client with a certificate of those CAs may ask.
	ClientNames []string `yaml:"client_names" env:"CLIENT_NAMES"`
	// MinVersion is the oldest version of TLS that is spoken: 1.3 or 1.2. Empty: 1.3.
	MinVersion string `yaml:"min_version" env:"MIN_VERSION"`
}

// On reports whether TLS is wanted.
func (t *TLS) On() bool {
	return t.CertFile != "" || t.KeyFile != "" || t.ClientCAFile != "" || len(t.ClientNames) > 0 || t.MinVersion != ""
}

// Shutdown says how the server ends.
type Shutdown struct {
	// Delay is how long it goes on answering after SIGTERM, while health says that it is leaving: the time that Envoys take
	// to learn of it and to ask others.
	Delay Duration `yaml:"delay" env:"DELAY"`
}

func defaultListen() Listen {
	return Listen{GRPC: "127.0.0.1:9001", Admin: "127.0.0.1:9002", MaxConnectionAge: Duration{Duration: 10 * time.Minute}}
}

func defaultShutdown() Shutdown { return Shutdown{Delay: Duration{Duration: time.Second}} }

// UnixPrefix begins the address of a Unix socket.
const UnixPrefix = "unix:"

// maxSocketPath is the longest path of a socket, which the system bounds. It leaves room for a folder in which it is made.
const maxSocketPath = 80

// Address is one address at which the server listens.
type Address struct {
	Name  string // of the field: listen.NAME
	Value string // "" if the port is not wanted

	example string
	needed  bool
	socket  bool // may be a Unix socket
}

// Addresses returns all addresses, those of ports that are not wanted included.
func (l *Listen) Addresses() []Address {
	return []Address{
		{Name: "grpc", Value: l.GRPC, example: "127.0.0.1:9001 or unix:/run/tollkeeper.sock", needed: true, socket: true},
		{Name: "admin", Value: l.Admin, example: "127.0.0.1:9002", needed: true},
		{Name: "events", Value: l.Events, example: "127.0.0.1:9005"},
		{Name: "health", Value: l.Health, example: "0.0.0.0:9003"},
		{Name: "metrics", Value: l.Metrics, example: "0.0.0.0:9004"},
	}
}

// validate returns the first field that cannot be honoured, and why.
func (l *Listen) validate() (field string, err error) {
	all := l.Addresses()
	for i := range all {
		if err := all[i].validate(); err != nil {
			return "listen." + all[i].Name, err
		}
	}
	for i := range all {
		for _, other := range all[:i] {
			if all[i].overlaps(other) {
				return "listen." + all[i].Name, fmt.Errorf("%q is the address of listen.%s too: want one of its own", all[i].Value, other.Name)
			}
		}
	}
	return "", nil
}

func (a *Address) validate() error {
	if a.Value == "" && !a.needed {
		return nil
	}
	if path, ok := strings.CutPrefix(a.Value, UnixPrefix); ok && a.socket {
		if !filepath.IsAbs(path) || len(path) > maxSocketPath {
			return fmt.Errorf("%q: want an absolute path of %d bytes at most, such as unix:/run/tollkeeper.sock", a.Value, maxSocketPath)
		}
		return nil
	}
	_, port, err := net.SplitHostPort(a.Value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q: want host:port, such as %s", a.Value, a.example)
	}
	return nil
}

// overlaps reports whether two valid addresses are the same port of this machine. Port 0 is a free port each time.
func (a *Address) overlaps(b Address) bool {
	hostA, portA, errA := net.SplitHostPort(a.Value)
	hostB, portB, errB := net.SplitHostPort(b.Value)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	anyHost := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	local := strings.NewReplacer("localhost", "127.0.0.1")
	return anyHost(hostA) || anyHost(hostB) || local.Replace(hostA) == local.Replace(hostB)
}

// Options returns the files and clients of the section, without clock and logger.
func (t *TLS) Options() tlsfiles.Options {
	return tlsfiles.Options{CertFile: t.CertFile, KeyFile: t.KeyFile, ClientCAFile: t.ClientCAFile, ClientNames: t.ClientNames, MinVersion: t.MinVersion}
}

// validate checks what can be checked without the files.
func (t *TLS) validate() (field string, err error) {
	if !t.On() {
		return "", nil
	}
	o := t.Options()
	if fault := o.Check(); fault != nil {
		return "tls." + fault.Field, fault.Err
	}
	return "", nil
}
