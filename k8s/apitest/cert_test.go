package apitest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	certv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// authority takes the place of cert-manager: it is a CA, and signs for Certificates.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

// newAuthority makes an authority with a key; nil: with a new one.
func newAuthority(key *ecdsa.PrivateKey) (*authority, error) {
	a := &authority{key: key}
	var err error
	if a.key == nil {
		if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	a.cert = &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: "tollkeeper-ca"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	a.pem = pemOf("CERTIFICATE", der)
	a.cert, err = x509.ParseCertificate(der)
	return a, err
}

// renew makes the authority anew, as its Certificate says. Without a rotationPolicy cert-manager makes a new key.
func (a *authority) renew(c *certv1.Certificate) (*authority, error) {
	if p := c.Spec.PrivateKey; p != nil && p.RotationPolicy == certv1.RotationPolicyNever {
		return newAuthority(a.key)
	}
	return newAuthority(nil)
}

// secret is the Secret of the authority itself.
func (a *authority) secret() (map[string][]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	return map[string][]byte{"tls.crt": a.pem, "tls.key": pemOf("PRIVATE KEY", der), "ca.crt": a.pem}, err
}

// sign returns the Secret of a Certificate.
func (a *authority) sign(c *certv1.Certificate) (map[string][]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{SerialNumber: serial(), DNSNames: c.Spec.DNSNames, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	for _, u := range c.Spec.Usages {
		if ext, ok := usages[u]; ok {
			leaf.ExtKeyUsage = append(leaf.ExtKeyUsage, ext)
		}
	}
	cert, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return map[string][]byte{"tls.crt": pemOf("CERTIFICATE", cert), "tls.key": pemOf("PRIVATE KEY", der), "ca.crt": a.pem}, err
}

var usages = map[certv1.KeyUsage]x509.ExtKeyUsage{certv1.UsageServerAuth: x509.ExtKeyUsageServerAuth, certv1.UsageClientAuth: x509.ExtKeyUsageClientAuth}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func serial() *big.Int { return big.NewInt(time.Now().UnixNano()) }

// certificate returns the first Certificate of an authority, or the first of a leaf.
func certificate(w world, isCA bool) *named[certv1.Certificate] {
	list := all[certv1.Certificate](w)
	return list[slices.IndexFunc(list, func(c *named[certv1.Certificate]) bool { return c.v.Spec.IsCA == isCA })]
}

// healthOver asks Tollkeeper for its health over TLS, with an authority to trust and a client certificate, if any.
func healthOver(t *testing.T, addr string, ca []byte, client map[string][]byte) error {
	t.Helper()
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "tollkeeper.tollkeeper.svc"}
	cfg.RootCAs.AppendCertsFromPEM(ca)
	if client != nil {
		cert, err := tls.X509KeyPair(client["tls.crt"], client["tls.key"])
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	return err
}

// issue makes a Secret for each Certificate, signed by a new authority.
func issue(t *testing.T, w world) material {
	t.Helper()
	a, err := newAuthority(nil)
	if err != nil {
		t.Fatal(err)
	}
	return issueBy(t, a, w)
}

func issueBy(t *testing.T, a *authority, w world) material {
	t.Helper()
	made := make(material)
	for _, c := range all[certv1.Certificate](w) {
		if c.v.Spec.IsCA {
			continue
		}
		var err error
		if made[c.v.Spec.SecretName], err = a.sign(c.v); err != nil {
			t.Fatal(err)
		}
	}
	return made
}

// A renewed authority breaks nothing, in whatever order its certificates are renewed afterwards: cert-manager does not
// renew them together with it.
func TestCertManager_RenewedAuthority(t *testing.T) {
	certs := mustBuild(t, "standalone/cert-manager")
	old, err := newAuthority(nil)
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := old.renew(certificate(certs, true).v)
	if err != nil {
		t.Fatal(err)
	}
	before, after := issueBy(t, old, certs), issueBy(t, renewed, certs)
	p, a := serve(t, mustBuild(t, "standalone"), maps.Clone(before))
	asks := func(client map[string][]byte) error { return healthOver(t, a.GRPC, client["ca.crt"], client) }
	if err := asks(after["envoy-client"]); err != nil {
		t.Errorf("Envoy's certificate renewed first: %v", err)
	}
	for name, content := range after["tollkeeper-tls"] {
		if err := os.WriteFile(filepath.Join(p.at("/run/tollkeeper/tls"), name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	await(t, p, func() error { // until Tollkeeper uses the new certificate
		conn, err := tls.Dial("tcp", a.GRPC, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			return err
		}
		defer conn.Close()
		if string(pemOf("CERTIFICATE", conn.ConnectionState().PeerCertificates[0].Raw)) != string(after["tollkeeper-tls"]["tls.crt"]) {
			return errors.New("Tollkeeper still uses the old certificate")
		}
		return nil
	})
	if err := asks(before["envoy-client"]); err != nil {
		t.Errorf("Tollkeeper's certificate renewed first: %v", err)
	}
}
