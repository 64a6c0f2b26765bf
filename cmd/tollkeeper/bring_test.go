package main

import (
	"crypto/x509"
	"os"
	"os/exec"
	"testing"
)

// TestBringsCertificateAuthorities asks a process that finds none on its machine, as in an empty container. Which ones a
// machine has is read once, as a process starts, and so it takes another process.
func TestBringsCertificateAuthorities(t *testing.T) {
	const inside = "TOLLKEEPER_TEST_EMPTY_MACHINE"
	if os.Getenv(inside) == "" {
		nowhere := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run", "^TestBringsCertificateAuthorities$")
		cmd.Env = append(os.Environ(), inside+"=1", "SSL_CERT_FILE="+nowhere+"/none", "SSL_CERT_DIR="+nowhere)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		t.Fatal(err)
	}
	if pool.Equal(x509.NewCertPool()) {
		t.Error("no certificate authority is known: no issuer could be asked over HTTPS")
	}
}
