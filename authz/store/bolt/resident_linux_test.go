package bolt_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDropPages_FreesMemory counts the pages of the file that are in this process's memory.
func TestDropPages_FreesMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	db := openIn(t, path)
	addAll(t, db.Revocations(), 20_000, revokedToken)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = openIn(t, path)
	defer func() { _ = db.Close() }()
	if _, err := db.Revocations().Since(t.Context(), 0, 20_000); err != nil {
		t.Fatal(err)
	}
	read := resident(t, path)
	if _, err := db.Revocations().Since(t.Context(), 0, 30_000); err != nil { // fewer than the limit: no more pages are to be read, so none are dropped
		t.Fatal(err)
	}
	if left := resident(t, path); read > left/4 {
		t.Errorf("%d kB of %d kB are still in memory", read, left)
	}
}

// resident is how much of a mapped file is in this process's memory, in kB.
func resident(t *testing.T, path string) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(maps), path)
	_, rest, _ = strings.Cut(rest, "\nRss:")
	var kB int
	if _, err := fmt.Sscan(rest, &kB); err != nil || !found {
		t.Fatalf("%s is not mapped: %v", path, err)
	}
	return kB
}
