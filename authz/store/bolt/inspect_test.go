package bolt_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// inspect runs every check on a file, as an operator would, and returns what is wrong. It must not change the file.
func inspect(t *testing.T, path string, content []byte) error {
	t.Helper()
	f, err := bolt.Inspect(path)
	if err == nil {
		err = wrong(doctor.Run(t.Context(), f.Checks()))
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, content) {
		t.Errorf("the file was changed by looking at it: %v", err)
	}
	return err
}

// wrong is the first thing that a report says is wrong.
func wrong(r doctor.Report) error {
	for _, f := range r.Findings {
		if f.State == doctor.StateWrong {
			return fmt.Errorf("%s: %s", f.Check, f.Wrong)
		}
	}
	if !r.OK {
		return fmt.Errorf("nothing is wrong and the report is not ok: %+v", r)
	}
	return nil
}

// TestChecks_Unreadable checks a file that could not be opened: the first check reports why, and guards the others.
func TestChecks_Unreadable(t *testing.T) {
	checks := bolt.ChecksOfUnreadable(errors.New("it is garbage"))
	for _, c := range checks {
		if c.Name == "" || c.Claim == "" || c.Remedy == "" {
			t.Errorf("a check without a name, a claim or a remedy: %+v", c)
		}
	}
	r := doctor.Run(t.Context(), checks)
	for i, f := range r.Findings {
		if (f.State == doctor.StateWrong) != (i == 0) || (f.State == doctor.StateSkipped) != (i > 0) || (f.Remedy == "") != (i > 0) {
			t.Errorf("finding %d: %+v", i, f)
		}
	}
	if r.OK || len(r.Findings) < 2 || r.Findings[0].Wrong != "it is garbage" {
		t.Errorf("%+v", r)
	}
}

func TestInspect_SharesNoFile(t *testing.T) {
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
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	db := openIn(t, path)
	defer checkAndClose(t, db)
	if _, err := bolt.Inspect(path); !errors.Is(err, bolt.ErrInUse) {
		t.Errorf("inspect while it is open: %v", err)
	}
	if err := wrong(doctor.Run(t.Context(), db.Checks())); err != nil {
		t.Error(err)
	}
}

// TestInspect_MakesNothing looks at files that are not there, or are not files of ours.
func TestInspect_MakesNothing(t *testing.T) {
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
