package envoy

import (
	"net/http"
	"testing"

	"golang.org/x/sys/unix"
)

// The process may not write to files, which looks to it like a full disk.
func TestStore_DeniesWhenItCannotWrite(t *testing.T) {
	s := newStack(t)
	key := s.customer("acme", "large")
	var before unix.Rlimit
	if err := unix.Prlimit(s.tk.PID(), unix.RLIMIT_FSIZE, nil, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(s.tk.PID(), unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 0, Max: before.Max}, nil); err != nil {
		t.Fatal(err)
	}
	s.wantDenial(s.get("/", key.Text), http.StatusForbidden, "store_unavailable")
	if err := unix.Prlimit(s.tk.PID(), unix.RLIMIT_FSIZE, &before, nil); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return s.get("/", key.Text).StatusCode == http.StatusOK })
}
