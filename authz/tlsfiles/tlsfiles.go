// Package tlsfiles is the TLS of a port whose certificate, key and client CA are files that change while it serves. A renewal
// replaces them; Kubernetes does so by pointing a symbolic link elsewhere.
//
// Poll reads the files each time and compares their contents. This notices every kind of replacement on every file system.
// New connections use the last files that were usable; open connections stay as they are.
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

// Options say which files are used, and which clients may connect.
type Options struct {
	CertFile, KeyFile string   // PEM; the certificate with the chain above it
	ClientCAFile      string   // PEM; empty: clients need no certificate
	ClientNames       []string // URIs and DNS names (SANs); a client needs one of them; empty: every certificate of the CA is accepted
	MinVersion        string   // 1.3 or 1.2; empty: 1.3
	Now               func() time.Time
	Log               *slog.Logger
}

// FieldError says which field of the configuration is wrong, and why.
type FieldError struct {
	Field string // such as cert_file
	Err   error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

func fieldErrorf(field, format string, args ...any) *FieldError {
	return &FieldError{field, fmt.Errorf(format, args...)}
}

// versions are the values of MinVersion.
var versions = map[string]uint16{"": tls.VersionTLS13, "1.3": tls.VersionTLS13, "1.2": tls.VersionTLS12}

// Check returns what is wrong with the options, without looking at the files. It returns nil if nothing is.
func (o *Options) Check() *FieldError {
	switch {
	case o.CertFile == "":
		return fieldErrorf("cert_file", "want the file with the certificate: TLS is configured, and without one there would be none")
	case o.KeyFile == "":
		return fieldErrorf("key_file", "want the file with the certificate's key")
	case o.ClientCAFile == "" && len(o.ClientNames) > 0:
		return fieldErrorf("client_names", "clients have no names without certificates: set tls.client_ca_file")
	}
	for _, name := range o.ClientNames {
		if name == "" || strings.ContainsAny(name, "* \t\r\n") {
			return fieldErrorf("client_names", "%q: want whole names, such as spiffe://cluster.local/ns/edge/sa/envoy or envoy.edge.svc", name)
		}
	}
	if _, ok := versions[o.MinVersion]; !ok {
		return fieldErrorf("min_version", "%q: want 1.3 or 1.2", o.MinVersion)
	}
	return nil
}

// Files are certificate, key and CA as they are on disk. Their methods may be called concurrently.
type Files struct {
	o       Options
	current atomic.Pointer[material]

	mu      sync.Mutex
	seen    [sha256.Size]byte // digest of what was read last
	settled bool              // what was read last is in use, or its fault was reported
	status  Status
}

// material is what was made of one state of the files.
type material struct {
	config         *tls.Config
	certificateEnd time.Time // the earliest end in the chain
	caEnd          time.Time // the earliest end of the clients' CAs; zero: there are none
}

// Status is the state of the files.
type Status struct {
	CertificateEnds time.Time
	ClientCAEnds    time.Time // zero: there is none
	Reloads         uint64    // how often new files were put into use
	Faults          uint64    // how often new files could not be used
	Fault           string    // what is wrong with the files on disk; empty: they are in use
}

// Open reads the files for the first time. An error about a field or its file is a *FieldError.
func Open(o Options) (*Files, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	f := &Files{o: o}
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

// Config returns a configuration for a server that always uses the current files.
func (f *Files) Config() *tls.Config {
	return &tls.Config{
		MinVersion:         versions[f.o.MinVersion],
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.current.Load().config, nil },
	}
}

// Status returns the state of the files.
func (f *Files) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, m := f.status, f.current.Load()
	s.CertificateEnds, s.ClientCAEnds = m.certificateEnd, m.caEnd
	return s
}

// Poll reads the files once. New files that can be used are used from now on. Files that cannot be used are a fault only
// if the next Poll finds them unchanged: while certificate and key are written one after the other, they do not match.
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
		f.o.Log.Info("tls files reloaded", "certificate_ends", m.certificateEnd, "cert_file", f.o.CertFile)
	case changed:
		f.settled = false
	case f.settled: // reported already, and tried again: a certificate that is not valid yet will be
	default:
		f.settled = true
		f.status.Fault = err.Error()
		f.status.Faults++
		f.o.Log.Error("tls files not reloaded: the previous ones stay in use", "error", "tls."+err.Error(), "certificate_ends", f.current.Load().certificateEnd)
	}
}

// contents are the bytes of the files, nil where no file is configured.
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
			return contents{}, &FieldError{file.field, err}
		}
	}
	return c, nil
}

// build makes a configuration of the files. The error says why they cannot be used.
func (f *Files) build(c contents) (*material, error) {
	chain, err := certificates(c.cert)
	if err != nil {
		return nil, fieldErrorf("cert_file", "%s: %w", f.o.CertFile, err)
	}
	now := f.o.Now()
	if err := checkDates(chain[0], now); err != nil {
		return nil, fieldErrorf("cert_file", "%s: %w", f.o.CertFile, err)
	}
	pair, err := tls.X509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fieldErrorf("key_file", "%s: %s", f.o.KeyFile, strings.TrimPrefix(err.Error(), "tls: "))
	}
	m := &material{certificateEnd: earliestEnd(chain), config: &tls.Config{
		MinVersion:   versions[f.o.MinVersion],
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2"},
		// A ticket would let a client connect again without its certificate being checked. Connections last long, so
		// handshakes that are not resumed cost little.
		SessionTicketsDisabled: true,
	}}
	if f.o.ClientCAFile == "" {
		return m, nil
	}
	roots, err := certificates(c.ca)
	if err == nil && !slices.ContainsFunc(roots, func(c *x509.Certificate) bool { return checkDates(c, now) == nil }) {
		err = checkDates(roots[0], now)
	}
	if err != nil {
		return nil, fieldErrorf("client_ca_file", "%s: %w", f.o.ClientCAFile, err)
	}
	m.caEnd = earliestEnd(roots)
	m.config.ClientAuth = tls.RequireAndVerifyClientCert
	m.config.ClientCAs = x509.NewCertPool()
	for _, c := range roots {
		m.config.ClientCAs.AddCert(c)
	}
	m.config.VerifyConnection = f.verifyName
	return m, nil
}

// verifyName refuses a client whose certificate names none of the ClientNames.
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
		// A name with a colon is a URI and is compared with URIs only, another one with DNS names only.
		if isURI := i < len(leaf.URIs); isURI == strings.Contains(name, ":") && slices.Contains(f.o.ClientNames, name) {
			return nil
		}
	}
	return &NameError{Shown: shown}
}

// NameError refuses a client whose certificate is valid and names none of the ClientNames.
type NameError struct{ Shown []string } // the names in the certificate

// An error repeats at most maxShown names of at most maxShownName bytes: the client chose them.
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

// warnOfOpenKey logs a warning if every user of the machine can read the key.
func (f *Files) warnOfOpenKey() {
	if info, err := os.Stat(f.o.KeyFile); err == nil && info.Mode().Perm()&0o004 != 0 {
		f.o.Log.Warn("tls.key_file can be read by every user of this machine: chmod o-r", "key_file", f.o.KeyFile, "mode", info.Mode().Perm().String())
	}
}

// certificates reads all certificates of a PEM file. None at all is an error.
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
		return nil, errors.New("the file has no PEM certificate")
	}
	if n := bytes.Count(raw, []byte("-----BEGIN CERTIFICATE-----")); n != len(out) { // pem.Decode skips what it cannot read
		return nil, fmt.Errorf("%d of its %d certificates are damaged", n-len(out), n)
	}
	return out, nil
}

// checkDates returns an error if the certificate is not valid at that time.
func checkDates(c *x509.Certificate, now time.Time) error {
	if now.After(c.NotAfter) {
		return fmt.Errorf("the certificate expired on %s: renew it", c.NotAfter.UTC().Format(time.RFC3339))
	}
	if now.Before(c.NotBefore) {
		return fmt.Errorf("the certificate is valid only from %s: check the clock", c.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// earliestEnd returns when the first of the certificates expires.
func earliestEnd(certs []*x509.Certificate) time.Time {
	return slices.MinFunc(certs, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }).NotAfter
}
