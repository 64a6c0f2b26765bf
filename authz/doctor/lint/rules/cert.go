package rules

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

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
)

// This file has the rules about the certificates of the gRPC port.

// withCertificates is a check of the TLS files on this machine.
func withCertificates(check func(*model.Model, *model.Own, model.TLSFiles, rule.Report)) []rule.Check {
	return onThisMachine(func(in *model.Model, o *model.Own, _ *model.State, report rule.Report) {
		if files := o.TLSFiles(); files != (model.TLSFiles{}) {
			check(in, o, files, report)
		}
	})
}

var certUnusable = rule.Rule{
	ID: "TK220", Severity: rule.Error, Since: since, Title: "A certificate cannot be used.",
	Why:    "The server does not start.",
	Remedy: "Name a PEM file with the certificate and its chain, and the key that belongs to it.",
	Checks: loadCertificates,
}

var loadCertificates = withCertificates(func(_ *model.Model, o *model.Own, files model.TLSFiles, report rule.Report) {
	if _, err := tls.LoadX509KeyPair(files.Cert, files.Key); err != nil {
		report(rule.At(o.At("tls.cert_file"), "the certificate cannot be used: %v", err))
	}
	if files.ClientCA != "" {
		if _, err := readCertificates(files.ClientCA); err != nil {
			report(rule.At(o.At("tls.client_ca_file"), "the CA of clients cannot be used: %v", err))
		}
	}
})

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

var certExpiry = rule.Rule{
	ID: "TK221", Severity: rule.Error, Since: since, Title: "A certificate has expired, or soon will.",
	Why:    "Envoy refuses the connection, and every check fails.",
	Remedy: "Renew it: the server reads it again by itself.",
	Checks: withCertificates(func(in *model.Model, o *model.Own, files model.TLSFiles, report rule.Report) {
		const soon = 14 * 24 * time.Hour
		for field, path := range map[string]string{"tls.cert_file": files.Cert, "tls.client_ca_file": files.ClientCA} {
			certs, err := readCertificates(path)
			if err != nil {
				continue // another rule reports this
			}
			at := o.At(field)
			for _, c := range certs {
				switch name := nameOf(c); {
				case in.Now.After(c.NotAfter):
					report(rule.At(at, "the certificate of %q expired on %s", name, c.NotAfter.UTC().Format(time.DateOnly)))
				case in.Now.Before(c.NotBefore):
					report(rule.At(at, "the certificate of %q is not valid before %s", name, c.NotBefore.UTC().Format(time.RFC3339)))
				case c.NotAfter.Sub(in.Now) < soon:
					report(rule.At(at, "the certificate of %q expires on %s", name, c.NotAfter.UTC().Format(time.DateOnly)).As(rule.Warning))
				}
			}
		}
	}),
}

func nameOf(c *x509.Certificate) string {
	if names := sans(c); c.Subject.CommonName == "" && len(names) > 0 {
		return names[0]
	}
	return c.Subject.CommonName
}

// sans are the subject alternative names of a certificate.
func sans(c *x509.Certificate) []string {
	return slices.Concat(c.DNSNames, uris(c), ips(c))
}

func uris(c *x509.Certificate) (out []string) {
	for _, u := range c.URIs {
		out = append(out, u.String())
	}
	return out
}

func ips(c *x509.Certificate) (out []string) {
	for _, ip := range c.IPAddresses {
		out = append(out, ip.String())
	}
	return out
}

var certNames = rule.Rule{
	ID: "TK222", Severity: rule.Error, Since: since, Title: "The certificate does not have the name that Envoy verifies, or is not for a server.",
	Why:    "Envoy refuses the connection, and every check fails.",
	Remedy: "Issue it with the extended key usage serverAuth, and with the name that Envoy verifies as DNS name or URI.",
	Checks: withCertificates(func(in *model.Model, o *model.Own, files model.TLSFiles, report rule.Report) {
		certs, err := readCertificates(files.Cert)
		if err != nil {
			return
		}
		leaf, at := certs[0], o.At("tls.cert_file")
		if len(sans(leaf)) == 0 {
			report(rule.At(at, "the certificate has no subject alternative name, and Envoy verifies no other name"))
		}
		server := slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
		if len(leaf.ExtKeyUsage) > 0 && !server {
			report(rule.At(at, "the certificate is not for servers: its extended key usage lacks serverAuth"))
		}
		unwantedNames(in, leaf, report)
	}),
}

// unwantedNames finds clusters that verify a name that the certificate does not have.
func unwantedNames(in *model.Model, leaf *x509.Certificate, report rule.Report) {
	for _, t := range in.Targets() {
		msg, _ := model.Unpack(t.Msg.GetTransportSocket().GetTypedConfig())
		ctx, ok := msg.(*tlsv3.UpstreamTlsContext)
		if !ok {
			continue
		}
		v, where, _ := model.Validation(t.At("transport_socket.typed_config"), ctx)
		wanted := v.GetMatchTypedSubjectAltNames()
		if len(wanted) == 0 || slices.ContainsFunc(wanted, func(m *tlsv3.SubjectAltNameMatcher) bool { return hasName(leaf, m) }) {
			continue
		}
		report(rule.At(where.At("match_typed_subject_alt_names"), "Envoy verifies a name that Tollkeeper's certificate does not have: it is for %s", some(sans(leaf))))
	}
}

// hasName reports whether a certificate has a name that a matcher accepts. It assumes so for kinds of names that it does not know.
func hasName(c *x509.Certificate, m *tlsv3.SubjectAltNameMatcher) bool {
	var names []string
	switch m.GetSanType() {
	case tlsv3.SubjectAltNameMatcher_DNS:
		if exact := m.GetMatcher().GetExact(); exact != "" && c.VerifyHostname(exact) == nil { // wildcards count
			return true
		}
		names = c.DNSNames
	case tlsv3.SubjectAltNameMatcher_URI:
		names = uris(c)
	case tlsv3.SubjectAltNameMatcher_IP_ADDRESS:
		names = ips(c)
	default:
		return true
	}
	return slices.ContainsFunc(names, func(name string) bool { return model.Matches(m.GetMatcher(), name) })
}

var certClients = rule.Rule{
	ID: "TK223", Severity: rule.Warning, Since: since, Title: "Clients of the gRPC port need no certificate.",
	Why:    "Any client that reaches it can try out keys and use up quotas.",
	Remedy: "Set tls.client_ca_file and tls.client_names.",
	Checks: eachOwn(func(in *model.Model, o *model.Own, report rule.Report) {
		files, address := o.TLSFiles(), o.Config.Listen.GRPC
		if files.Cert == "" || !isExposed(address) || files.ClientCA != "" && len(o.Config.TLS.ClientNames) > 0 {
			return
		}
		found := rule.At(o.At("tls.client_ca_file"), "clients of %s need no certificate", address)
		if files.ClientCA != "" {
			found = rule.At(o.At("tls.client_names"), "every client of %s may ask with any certificate of the CA", address).
				FixedBy("Name the certificates of your Envoys in tls.client_names.")
		}
		if o.IsFenced(in.Objects) {
			found.Wrong += ": only a NetworkPolicy restricts them"
			found = found.As(rule.Info)
		}
		report(found)
	}),
}

var certKeyShared = rule.Rule{
	ID: "TK224", Severity: rule.Warning, Since: since, Title: "Other users may read the private key.",
	Why:    "With it, they can answer in Tollkeeper's place.",
	Remedy: "chmod 600 the key.",
	Checks: withCertificates(func(_ *model.Model, o *model.Own, files model.TLSFiles, report rule.Report) {
		if info, err := os.Stat(files.Key); err == nil && info.Mode().Perm()&0o004 != 0 {
			report(rule.At(o.At("tls.key_file"), "all users of this machine may read the private key %s", files.Key))
		}
	}),
}
