// Package harness runs what a request meets on its way: a real Envoy with the configuration that we ship, a
// Tollkeeper process, and an upstream that remembers what reached it. The end-to-end tests and the demo are built
// on it.
//
// Everything listens on loopback, on ports that were free a moment before. Whoever starts something stops it; nothing
// here outlives its Stop or Close.
package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// ModuleRoot returns the directory that holds go.mod: dir or the nearest one above it.
func ModuleRoot(dir string) (string, error) {
	at, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(at, "go.mod"))
		if err == nil {
			return at, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		up := filepath.Dir(at)
		if up == at {
			return "", fmt.Errorf("no go.mod in %q or above it", dir)
		}
		at = up
	}
}

// freePorts returns n different TCP ports of 127.0.0.1 that nobody listened on. Somebody else may take one before it
// is used: callers try again with other ports when their process says so.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // held until all are chosen, so that they differ
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
