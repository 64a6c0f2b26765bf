// Package tlsfiles is the TLS of a port whose certificate, key and client CA are files that change while it serves: a
// renewal replaces them, and Kubernetes does so by pointing a symbolic link elsewhere.
//
// The files are read again and again, and compared by what is in them: there is no kind of replacement that this misses,
// and no file system on which it does not work. New connections get what the files held last that could be used;
// connections that are open stay as they are.
package tlsfiles

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options say which files, and who may come in. The names of its fields in errors are those of the configuration.
type Options struct {
	CertFile, KeyFile string
	ClientCAFile      string   // empty: clients need no certificate
	ClientNames       []string // empty: every certificate that the CA issued will do
	MinVersion        string   // 1.3 or 1.2; empty: 1.3
	Now               func() time.Time
	Log               *slog.Logger
}

// Files are certificate, key and CA as they are on disk. Their methods may be called concurrently.
type Files struct {
	o          Options
	minVersion uint16
	current    atomic.Pointer[material]

	mu      sync.Mutex
	seen    [sha256.Size]byte // of what was read last
	settled bool              // whether that was dealt with: it is in use, or reported
	status  Status
}

// material is what one state of the files is worth.
type material struct {
	config      *tls.Config
	certificate time.Time // when the first certificate of the chain to end ends
	ca          time.Time // as certificate, of the clients' CA; zero where there is none
}

// Status is how the files are doing.
type Status struct {
	CertificateEnds time.Time
	ClientCAEnds    time.Time // zero: there is none
	Reloads, Faults uint64    // how often new files were put into use, and could not be
	Fault           string    // what is wrong with the files as they are; empty: they are in use
}

// Open reads the files for the first time. Whatever keeps them from being used as they are meant to be is an error.
func Open(o Options) (*Files, error) {
	f := &Files{o: o}
	switch {
	case o.CertFile == "":
		return nil, errors.New("cert_file: want the file with the certificate")
	case o.KeyFile == "":
		return nil, errors.New("key_file: want the file with the certificate's key")
	case o.ClientCAFile == "" && len(o.ClientNames) > 0:
		return nil, errors.New("client_names: clients have no names without certificates: set client_ca_file")
	}
	for _, name := range o.ClientNames {
		if name == "" || strings.ContainsAny(name, "* \t\r\n") {
			return nil, fmt.Errorf("client_names: %q: want whole names, such as spiffe://cluster.local/ns/edge/sa/envoy or envoy.edge.svc", name)
		}
	}
	switch o.MinVersion {
	case "", "1.3":
		f.minVersion = tls.VersionTLS13
	case "1.2":
		f.minVersion = tls.VersionTLS12
	default:
		return nil, fmt.Errorf("min_version: %q: want 1.3 or 1.2", o.MinVersion)
	}
	raw, err := f.read()
	if err != nil {
		return nil, err
	}
	m, err := f.build(raw)
	if err != nil {
		return nil, err
	}
	f.warnOfOpenKey()
	f.seen, f.settled = raw.sum(), true
	f.current.Store(m)
	return f, nil
}

// Config returns a configuration for a server, which follows the files.
func (f *Files) Config() *tls.Config {
	return &tls.Config{
		MinVersion:         f.minVersion,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.current.Load().config, nil },
	}
}

// Status tells how the files are doing.
func (f *Files) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, m := f.status, f.current.Load()
	s.CertificateEnds, s.ClientCAEnds = m.certificate, m.ca
	return s
}

// Poll looks at the files once. Files that are new and can be used are used from now on. Files that cannot be are given
// until the next time: whoever writes them one after the other leaves files for a moment that do not go together.
func (f *Files) Poll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	raw, err := f.read()
	sum := raw.sum()
	if err != nil {
		sum = sha256.Sum256([]byte(err.Error()))
	}
	changed := sum != f.seen
	if !changed && f.settled && f.status.Fault == "" {
		return
	}
	f.seen = sum
	var m *material
	if err == nil {
		m, err = f.build(raw)
	}
	switch {
	case err == nil:
		f.settled = true
		f.status.Fault = ""
		f.status.Reloads++
		f.warnOfOpenKey()
		f.current.Store(m)
		f.o.Log.Info("tls files reloaded", "certificate_ends", m.certificate, "cert_file", f.o.CertFile)
	case changed:
		f.settled = false
	case f.settled: // said already; but a certificate that is not valid yet will be
	default:
		f.settled = true
		f.status.Fault = err.Error()
		f.status.Faults++
		f.o.Log.Error("tls files not reloaded: the ones before stay in use", "error", "tls."+err.Error(), "certificate_ends", f.current.Load().certificate)
	}
}

// contents are those of the files, nil where no file is configured.
type contents struct{ cert, key, ca []byte }

func (c contents) sum() [sha256.Size]byte {
	h := sha256.New()
	for _, b := range [][]byte{c.cert, c.key, c.ca} {
		part := sha256.Sum256(b)
		h.Write(part[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (f *Files) read() (c contents, err error) {
	for _, file := range []struct {
		field, path string
		to          *[]byte
	}{
		{"cert_file", f.o.CertFile, &c.cert}, {"key_file", f.o.KeyFile, &c.key}, {"client_ca_file", f.o.ClientCAFile, &c.ca},
	} {
		if file.path == "" {
			continue
		}
		if *file.to, err = os.ReadFile(file.path); err != nil {
			return contents{}, fmt.Errorf("%s: %w", file.field, err)
		}
	}
	return c, nil
}

// build makes a configuration of the files, if they can be used.
func (f *Files) build(c contents) (*material, error) {
	chain, err := certificates(c.cert)
	if err != nil {
		return nil, fmt.Errorf("cert_file: %s: %w", f.o.CertFile, err)
	}
	now := f.o.Now()
	if err := inForce(chain[0], now); err != nil {
		return nil, fmt.Errorf("cert_file: %s: %w", f.o.CertFile, err)
	}
	pair, err := tls.X509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("key_file: %s: %s", f.o.KeyFile, strings.TrimPrefix(err.Error(), "tls: "))
	}
	m := &material{certificate: ends(chain), config: &tls.Config{
		MinVersion:   f.minVersion,
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2"},
		// A ticket would let a client in again without a look at its certificate. Connections last, so little is lost.
		SessionTicketsDisabled: true,
	}}
	if f.o.ClientCAFile == "" {
		return m, nil
	}
	roots, err := certificates(c.ca)
	if err == nil && !slices.ContainsFunc(roots, func(c *x509.Certificate) bool { return inForce(c, now) == nil }) {
		err = inForce(roots[0], now)
	}
	if err != nil {
		return nil, fmt.Errorf("client_ca_file: %s: %w", f.o.ClientCAFile, err)
	}
	m.ca = ends(roots)
	m.config.ClientAuth = tls.RequireAndVerifyClientCert
	m.config.ClientCAs = x509.NewCertPool()
	for _, c := range roots {
		m.config.ClientCAs.AddCert(c)
	}
	m.config.VerifyConnection = f.verifyName
	return m, nil
}

// verifyName refuses a client whose certificate has none of the names.
func (f *Files) verifyName(s tls.ConnectionState) error {
	if len(f.o.ClientNames) == 0 {
		return nil
	}
	if len(s.PeerCertificates) == 0 {
		return errors.New("no client certificate")
	}
	leaf := s.PeerCertificates[0]
	var shown []string
	for _, u := range leaf.URIs {
		shown = append(shown, u.String())
	}
	shown = append(shown, leaf.DNSNames...)
	for i, name := range shown {
		// What looks like a URI is only ever compared with one.
		if isURI := i < len(leaf.URIs); isURI == strings.Contains(name, ":") && slices.Contains(f.o.ClientNames, name) {
			return nil
		}
	}
	return &NameError{Shown: shown}
}

// NameError refuses a client with a good certificate that is none of those who may come in.
type NameError struct{ Shown []string }

// maxShown bounds how much of what a stranger says of himself is repeated.
const maxShown, maxShownName = 4, 128

func (e *NameError) Error() string {
	var names []string
	for _, n := range e.Shown[:min(len(e.Shown), maxShown)] {
		names = append(names, fmt.Sprintf("%q", n[:min(len(n), maxShownName)]))
	}
	if len(e.Shown) > maxShown {
		names = append(names, fmt.Sprintf("%d more", len(e.Shown)-maxShown))
	}
	if len(names) == 0 {
		return "the client's certificate has no URI and no DNS name: tls.client_names wants one"
	}
	return "the client's certificate has none of tls.client_names, but " + strings.Join(names, ", ")
}

// warnOfOpenKey speaks up where everybody on the machine can be us.
func (f *Files) warnOfOpenKey() {
	if info, err := os.Stat(f.o.KeyFile); err == nil && info.Mode().Perm()&0o004 != 0 {
		f.o.Log.Warn("tls.key_file can be read by everybody on this machine: chmod o-r", "key_file", f.o.KeyFile, "mode", info.Mode().Perm().String())
	}
}

// certificates reads all that are in a PEM file, of which there has to be one.
func certificates(raw []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("there is no PEM certificate in it")
	}
	if n := bytes.Count(raw, []byte("-----BEGIN CERTIFICATE-----")); n != len(out) { // the decoder passes over what it cannot read
		return nil, fmt.Errorf("%d of its %d certificates are damaged", n-len(out), n)
	}
	return out, nil
}

func inForce(c *x509.Certificate, now time.Time) error {
	if now.After(c.NotAfter) {
		return fmt.Errorf("the certificate expired on %s: renew it", c.NotAfter.UTC().Format(time.RFC3339))
	}
	if now.Before(c.NotBefore) {
		return fmt.Errorf("the certificate is valid only from %s: check the clock", c.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// ends is when the first of them ends.
func ends(certs []*x509.Certificate) time.Time {
	return slices.MinFunc(certs, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }).NotAfter
}
