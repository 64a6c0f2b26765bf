package server

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
)

// TestPorts_HealthStopsLast: probes are answered until all other ports are done.
func TestPorts_HealthStopsLast(t *testing.T) {
	var mu sync.Mutex
	var stopped []string
	var ps ports
	for _, name := range []string{"grpc", "health", "metrics", "admin"} {
		ps = append(ps, &port{name: name, stop: func(context.Context) {
			mu.Lock()
			defer mu.Unlock()
			stopped = append(stopped, name)
		}})
	}
	ps.drain(t.Context())
	if len(stopped) != 4 || slices.Index(stopped, "health") != 3 {
		t.Errorf("stopped in the order %q", stopped)
	}
}

func TestPorts_FailureIsReportedByName(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ps := ports{
		{name: "grpc", listener: l, serve: func() error { return nil }},
		{name: "admin", listener: l, serve: func() error { return errors.New("broken") }},
	}
	defer ps.close()
	var wg sync.WaitGroup
	failed := ps.serve(&wg)
	wg.Wait()
	if err := <-failed; err == nil || err.Error() != "admin: broken" || len(failed) != 0 {
		t.Errorf("%v, and %d more", err, len(failed))
	}
	if ps.address("admin") != l.Addr().String() || ps.address("events") != "" {
		t.Errorf("admin at %q, events at %q", ps.address("admin"), ps.address("events"))
	}
}
