package main

import (
	"crypto/x509"
	"os"
	"os/exec"
	"testing"
)

// TestBinary_BringsCertificateAuthorities runs a process that finds no certificate authorities on its machine, as in an empty
// container. A process reads its machine's files once, so the test starts another one.
func TestBinary_BringsCertificateAuthorities(t *testing.T) {
	const inside = "TOLLKEEPER_TEST_EMPTY_MACHINE"
	if os.Getenv(inside) == "" {
		nowhere := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run", "^TestBinary_BringsCertificateAuthorities$")
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
		t.Error("no certificate authority is known: no issuer could be reached over HTTPS")
	}
}
