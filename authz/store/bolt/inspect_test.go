package bolt_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// inspect checks a file part by part until one is wrong, as whoever looks for damage does. The file stays as it is.
func inspect(t *testing.T, path string, content []byte) error {
	t.Helper()
	f, err := bolt.Inspect(path)
	for _, part := range bolt.Parts() {
		if err == nil {
			err = f.CheckPart(t.Context(), part)
		}
	}
	if f != nil {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, content) {
		t.Errorf("the file was changed by looking at it: %v", err)
	}
	return err
}

func TestInspect(t *testing.T) {
	content, path := sample(t), filepath.Join(t.TempDir(), "tollkeeper.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := inspect(t, path, content); err != nil {
		t.Error(err)
	}
	f, err := bolt.Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bolt.Open(path, bolt.Options{Pepper: "none"}); !errors.Is(err, bolt.ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("open while it is inspected: %v", err)
	}
	if err := f.CheckPart(t.Context(), "nothing"); authz.KindOf(err) != authz.KindInvalid || err == nil {
		t.Errorf("a part that is not there: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	db := openIn(t, path)
	defer checkAndClose(t, db)
	if _, err := bolt.Inspect(path); !errors.Is(err, bolt.ErrInUse) {
		t.Errorf("inspect while it is open: %v", err)
	}
	for _, part := range bolt.Parts() {
		if err := db.CheckPart(t.Context(), part); err != nil {
			t.Errorf("%s: %v", part, err)
		}
	}
}

// TestInspectMakesNothing looks at files that are not there, or are not files of ours.
func TestInspectMakesNothing(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "tollkeeper.db"), filepath.Join(dir, "nowhere", "tollkeeper.db")} {
		if _, err := bolt.Inspect(path); authz.KindOf(err) != authz.KindNotFound || !strings.Contains(err.Error(), path) {
			t.Errorf("%v", err)
		}
	}
	if _, err := bolt.Inspect(dir); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("a folder: %v", err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := bolt.Inspect(empty); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("an empty file: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	if info, err := os.Stat(empty); err != nil || info.Size() != 0 {
		t.Errorf("%v, %v", info, err)
	}
}
