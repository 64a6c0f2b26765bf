package lint

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
)

// TLSFiles are the files with which the gRPC port is protected.
type TLSFiles struct{ Cert, Key, ClientCA string }

// tlsOf are the files that a configuration names, or the environment that it will have.
func (in *Input) tlsOf(o *Own) TLSFiles {
	if o.state != nil && o.state.TLS != (TLSFiles{}) {
		return o.state.TLS
	}
	at := o.at("tls")
	files := TLSFiles{Cert: at.at("cert_file").text(), Key: at.at("key_file").text(), ClientCA: at.at("client_ca_file").text()}
	for name, path := range map[string]*string{"CERT": &files.Cert, "KEY": &files.Key, "CLIENT_CA": &files.ClientCA} {
		if value, ok := o.variables[config.EnvPrefix+"TLS_"+name+"_FILE"]; ok {
			*path = value.text()
		}
	}
	return files
}

// certificates calls f with the TLS files of the configurations of this machine.
func (in *Input) certificates(f func(o *Own, files TLSFiles)) {
	in.ofHere(func(o *Own, _ *State) {
		if files := in.tlsOf(o); files != (TLSFiles{}) {
			f(o, files)
		}
	})
}

func certUnusable(in *Input, report func(Finding)) {
	in.certificates(func(o *Own, files TLSFiles) {
		at := o.at("tls")
		if _, err := tls.LoadX509KeyPair(files.Cert, files.Key); err != nil {
			report(at.at("cert_file").says("the certificate cannot be used: %v", err))
		}
		if files.ClientCA != "" {
			if _, err := readCertificates(files.ClientCA); err != nil {
				report(at.at("client_ca_file").says("the CA of clients cannot be used: %v", err))
			}
		}
	})
}

// readCertificates reads all certificates of a PEM file.
func readCertificates(path string) ([]*x509.Certificate, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New(path + " holds no certificate")
	}
	return out, nil
}

// expirySoon is how long before its end a certificate should have been renewed.
const expirySoon = 14 * 24 * time.Hour

func certExpiry(in *Input, report func(Finding)) {
	now := in.opt.Now
	if now.IsZero() {
		now = time.Now()
	}
	check := func(at spot, path string) {
		certs, err := readCertificates(path)
		if path == "" || err != nil {
			return // which another rule says
		}
		for _, c := range certs {
			name := c.Subject.CommonName
			if name == "" && len(c.DNSNames)+len(c.URIs) > 0 {
				name = sans(c)[0]
			}
			switch {
			case now.After(c.NotAfter):
				report(at.says("the certificate of %q expired on %s", name, c.NotAfter.UTC().Format(time.DateOnly)))
			case now.Before(c.NotBefore):
				report(at.says("the certificate of %q is not good before %s", name, c.NotBefore.UTC().Format(time.RFC3339)))
			case c.NotAfter.Sub(now) < expirySoon:
				f := at.says("the certificate of %q expires on %s", name, c.NotAfter.UTC().Format(time.DateOnly))
				f.Severity = Warning
				report(f)
			}
		}
	}
	in.certificates(func(o *Own, files TLSFiles) {
		check(o.at("tls", "cert_file"), files.Cert)
		check(o.at("tls", "client_ca_file"), files.ClientCA)
	})
}

// sans are the names in a certificate.
func sans(c *x509.Certificate) []string {
	out := slices.Clone(c.DNSNames)
	for _, u := range c.URIs {
		out = append(out, u.String())
	}
	for _, ip := range c.IPAddresses {
		out = append(out, ip.String())
	}
	return out
}

func certNames(in *Input, report func(Finding)) {
	in.certificates(func(o *Own, files TLSFiles) {
		certs, err := readCertificates(files.Cert)
		if err != nil {
			return
		}
		leaf, at := certs[0], o.at("tls", "cert_file")
		if len(sans(leaf)) == 0 {
			report(at.says("the certificate names nobody in its subject alternative names, which is all that Envoy looks at"))
		}
		server := slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
		if len(leaf.ExtKeyUsage) > 0 && !server {
			report(at.says("the certificate is not for servers: its extended key usage lacks serverAuth"))
		}
	})
}

// certUnwanted: Envoy wants another name than the certificate has.
func certUnwanted(in *Input, report func(Finding)) {
	in.certificates(func(_ *Own, files TLSFiles) {
		certs, err := readCertificates(files.Cert)
		if err != nil {
			return
		}
		for _, t := range in.targets() {
			msg, _ := unpack(t.msg.GetTransportSocket().GetTypedConfig())
			ctx, ok := msg.(*tlsv3.UpstreamTlsContext)
			if !ok {
				continue
			}
			v, where, _ := validation(t.at("transport_socket", "typed_config"), ctx)
			wanted := v.GetMatchTypedSubjectAltNames()
			if len(wanted) == 0 || slices.ContainsFunc(wanted, func(m *tlsv3.SubjectAltNameMatcher) bool { return named(certs[0], m) }) {
				continue
			}
			report(where.at("match_typed_subject_alt_names").says("Envoy wants another name than Tollkeeper's certificate has, which is for %s", some(sans(certs[0]))))
		}
	})
}

// named reports whether a certificate has a name that Envoy wants.
func named(c *x509.Certificate, m *tlsv3.SubjectAltNameMatcher) bool {
	var names []string
	switch m.GetSanType() {
	case tlsv3.SubjectAltNameMatcher_DNS:
		if exact := m.GetMatcher().GetExact(); exact != "" && c.VerifyHostname(exact) == nil { // wildcards count
			return true
		}
		names = c.DNSNames
	case tlsv3.SubjectAltNameMatcher_URI:
		for _, u := range c.URIs {
			names = append(names, u.String())
		}
	case tlsv3.SubjectAltNameMatcher_IP_ADDRESS:
		for _, ip := range c.IPAddresses {
			names = append(names, ip.String())
		}
	default:
		return true // cannot be judged
	}
	return slices.ContainsFunc(names, func(name string) bool { return matches(m.GetMatcher(), name) })
}

// certClients: any client is served, for it is not asked who it is, or anybody with a certificate will do.
func certClients(in *Input, report func(Finding)) {
	for _, o := range in.owns {
		files := in.tlsOf(o)
		if files.Cert == "" || !exposed(o.Config.Listen.GRPC) {
			continue
		}
		f, fence := o.at("tls", "client_ca_file").says("clients need no certificate: who reaches %s can try out keys and use up quotas", o.Config.Listen.GRPC),
			"clients of %s need no certificate: only a NetworkPolicy says who they are"
		if files.ClientCA != "" {
			if len(o.Config.TLS.ClientNames) > 0 {
				continue
			}
			f, fence = o.at("tls", "client_names").says("every client with a certificate of the CA may ask on %s, whatever it was issued for", o.Config.Listen.GRPC),
				"every client of %s with a certificate of the CA may ask: only a NetworkPolicy says who they are"
			f.Remedy = "Name the certificates of your Envoys in tls.client_names."
		}
		if in.fenced(o) {
			f.Wrong, f.Severity = fmt.Sprintf(fence, o.Config.Listen.GRPC), Info
		}
		report(f)
	}
}

func certKeyShared(in *Input, report func(Finding)) {
	in.certificates(func(o *Own, files TLSFiles) {
		if info, err := os.Stat(files.Key); err == nil && info.Mode().Perm()&0o004 != 0 {
			report(o.at("tls", "key_file").says("everybody on this machine may read the private key %s", files.Key))
		}
	})
}
