package config

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
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

// validate returns the first field that cannot be honoured, and why. Each address has to be one of its own.
func (l *Listen) validate() (field string, err error) {
	taken := make(map[string]string) // address to field
	for _, a := range []struct {
		field, value, example string
		optional              bool
	}{
		{"listen.grpc", l.GRPC, "127.0.0.1:9001 or unix:/run/tollkeeper.sock", false},
		{"listen.admin", l.Admin, "127.0.0.1:9002", false},
		{"listen.events", l.Events, "127.0.0.1:9005", true},
		{"listen.health", l.Health, "0.0.0.0:9003", true},
		{"listen.metrics", l.Metrics, "0.0.0.0:9004", true},
	} {
		if a.value == "" && a.optional {
			continue
		}
		if path, ok := strings.CutPrefix(a.value, UnixPrefix); ok && a.field == "listen.grpc" {
			if !filepath.IsAbs(path) || len(path) > maxSocketPath {
				return a.field, fmt.Errorf("%q: want an absolute path of %d bytes at most, such as unix:/run/tollkeeper.sock", a.value, maxSocketPath)
			}
			continue
		}
		_, port, err := net.SplitHostPort(a.value)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return a.field, fmt.Errorf("%q: want host:port, such as %s", a.value, a.example)
		}
		for other, field := range taken {
			if port != "0" && overlap(a.value, other) {
				return a.field, fmt.Errorf("%q is the address of %s too: want one of its own", a.value, field)
			}
		}
		taken[a.value] = a.field
	}
	return "", nil
}

// overlap reports whether two addresses are one port of one machine.
func overlap(a, b string) bool {
	hostA, portA, _ := net.SplitHostPort(a)
	hostB, portB, _ := net.SplitHostPort(b)
	everywhere := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	local := strings.NewReplacer("localhost", "127.0.0.1")
	return portA == portB && (everywhere(hostA) || everywhere(hostB) || local.Replace(hostA) == local.Replace(hostB))
}

// validate looks at what can be said without the files.
func (t *TLS) validate() (field string, err error) {
	switch {
	case !t.On():
		return "", nil
	case t.CertFile == "":
		return "tls.cert_file", errors.New("want the file with the certificate: tls is set, and without one there would be none")
	case t.KeyFile == "":
		return "tls.key_file", errors.New("want the file with the certificate's key")
	case t.ClientCAFile == "" && len(t.ClientNames) > 0:
		return "tls.client_names", errors.New("clients have no names without certificates: set tls.client_ca_file")
	case !slices.Contains([]string{"", "1.2", "1.3"}, t.MinVersion):
		return "tls.min_version", fmt.Errorf("%q: want 1.3 or 1.2", t.MinVersion)
	}
	return "", nil
}
