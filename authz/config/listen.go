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

// Listen says where the server listens.
type Listen struct {
	// GRPC is the address for Envoy's checks: host:port, or unix:/path for a socket that its owner and group can use (mode
	// 0660). Without TLS, keep it on loopback, on a socket or in a trusted network: whoever reaches it can try keys and use
	// up quotas.
	GRPC string `yaml:"grpc" env:"GRPC"`
	// Admin is the address for the CLI, the admin API and metrics, as host:port. Callers need the admin token.
	Admin string `yaml:"admin" env:"ADMIN"`
	// Events is the address, as host:port, at which other programs revoke tokens: RFC 7009, OpenID back-channel logout and
	// Shared Signals. It has no TLS: put a proxy with TLS in front of it. Empty: the port is not opened.
	Events string `yaml:"events" env:"EVENTS"`
	// Health is an address, as host:port, for gRPC health checks only and without TLS: Kubernetes probes have no TLS. The
	// address grpc answers them, too. Empty: the port is not opened.
	Health string `yaml:"health" env:"HEALTH"`
	// Metrics is an address, as host:port, for GET /metrics only, over HTTP without TLS and without a token. Empty: the port
	// is not opened.
	Metrics string `yaml:"metrics" env:"METRICS"`
	// MaxConnectionAge is the age, give or take a tenth, at which a connection for checks is closed, so that connections
	// spread over new replicas. No check is lost. 0: connections are not closed.
	MaxConnectionAge Duration `yaml:"max_connection_age" env:"MAX_CONNECTION_AGE"`
}

// TLS is the TLS of listen.grpc. It is on if any of its fields is set. Changed files are used within seconds. If they cannot
// be used, the previous ones stay in use, the error is logged, and the metric tollkeeper_tls_fault is 1.
type TLS struct {
	// CertFile is a PEM file with the server's certificate and the chain above it.
	CertFile string `yaml:"cert_file" env:"CERT_FILE"`
	// KeyFile is a PEM file with the certificate's private key.
	KeyFile string `yaml:"key_file" env:"KEY_FILE"`
	// ClientCAFile is a PEM file with the CAs that issue certificates to clients, which then need one. Empty: clients need
	// no certificate.
	ClientCAFile string `yaml:"client_ca_file" env:"CLIENT_CA_FILE"`
	// ClientNames are URIs and DNS names (SANs). A client's certificate must have one of them, compared exactly. Empty: every
	// certificate of the CAs is accepted.
	ClientNames []string `yaml:"client_names" env:"CLIENT_NAMES"`
	// MinVersion is the oldest version of TLS that is accepted: 1.3 or 1.2. Empty: 1.3.
	MinVersion string `yaml:"min_version" env:"MIN_VERSION"`
}

// On reports whether TLS is wanted.
func (t *TLS) On() bool {
	return t.CertFile != "" || t.KeyFile != "" || t.ClientCAFile != "" || len(t.ClientNames) > 0 || t.MinVersion != ""
}

func defaultListen() Listen {
	return Listen{GRPC: "127.0.0.1:9001", Admin: "127.0.0.1:9002", MaxConnectionAge: Duration{Duration: 10 * time.Minute}}
}

// UnixPrefix begins the address of a Unix socket.
const UnixPrefix = "unix:"

// maxSocketPath is the longest path of a socket, in bytes. The system allows little more, and the server first makes the
// socket in a temporary folder beside the path.
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
