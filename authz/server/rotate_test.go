package server

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestDecisionLog_Rotated moves the file of decisions away, as logrotate does, with SIGHUP after it and without.
func TestDecisionLog_Rotated(t *testing.T) {
	dir := t.TempDir()
	cfg := configFor(dir)
	path := filepath.Join(dir, "decisions.log")
	cfg.Log.Decisions = path
	r := start(t, cfg)
	has := func(name string, lines int) {
		t.Helper()
		r.await(name, func() bool {
			raw, err := os.ReadFile(name)
			return err == nil && strings.Count(string(raw), "\n") == lines
		})
	}
	move := func(to string) {
		t.Helper()
		if err := os.Rename(path, to); err != nil {
			t.Fatal(err)
		}
	}
	r.check("")
	has(path, 1)
	move(path + ".1")
	r.check("")
	has(path, 1)
	move(path + ".2")
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	has(path, 0) // before anything is decided
	r.check("")
	has(path, 1)
	has(path+".1", 1)
	has(path+".2", 1)
}
