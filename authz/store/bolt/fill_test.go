package bolt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/transfer"
)

func sumsOf(t *testing.T, path string) map[transfer.Section]string {
	t.Helper()
	file, err := Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	s, err := file.Source(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[transfer.Section]string)
	for _, section := range transfer.Sections() {
		for _, limit := range []int{1, 3, 1000} { // in pages of any size
			var sum transfer.Sum
			var from []byte
			for more := true; more; more = from != nil {
				if from, err = s.Read(t.Context(), section, from, limit, func(e *transfer.Entry) error { sum.Add(e); return nil }); err != nil {
					t.Fatal(err)
				}
			}
			text := fmt.Sprint(sum.Count, " ", sum.Hash())
			if before, ok := out[section]; ok && before != text {
				t.Errorf("%s in pages of %d: %s, want %s", section, limit, text, before)
			}
			out[section] = text
		}
	}
	return out
}

// TestSource_OfAKilledServer reads what is in the file, in the write-ahead log, in both, and deleted in the log.
func TestSource_OfAKilledServer(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	db, err := Open(path, Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	l := authz.Limit{Name: "requests", Units: 10, Window: authz.WindowHour}
	ask := func(from, to int) {
		for i := from; i < to; i++ {
			id := fmt.Sprintf("%03d", i*7%100)
			_, err1 := quotatest.Ask{Node: "a", Seq: uint64(from*100 + i), Bucket: quota.Bucket{Holder: id}, Limit: l, Want: 1}.Send(t.Context(), db.Ledger())
			_, err2 := db.Ledger().Credit(t.Context(), quota.CreditRequest{ID: fmt.Sprint(from, " ", id), Bucket: quota.Bucket{Holder: id}, Limit: l, Units: 1})
			_, err3 := db.Ledger().Settle(t.Context(), quota.SettleRequest{ID: id, Bucket: quota.Bucket{Holder: id}, Limit: l})
			if err := errors.Join(err1, err2, err3); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask(0, 40)
	now = now.AddDate(0, 0, 1)
	ask(10, 60) // moves nothing: only what is forgotten is moved first
	if err := db.mover.move(t.Context()); err != nil {
		t.Fatal(err)
	}
	ask(50, 90)
	if n, err := db.Ledger().forgetRecords(t.Context(), []quota.HolderID{{Holder: "000"}, {Holder: "007"}}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	killed := filepath.Join(t.TempDir(), "tollkeeper.db")
	for from, to := range map[string]string{path: killed, logFolder(path): logFolder(killed)} {
		copyTree(t, from, to)
	}
	if entries, err := os.ReadDir(logFolder(killed)); err != nil || len(entries) == 0 {
		t.Fatal("there is no log", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	got, want := sumsOf(t, killed), sumsOf(t, path)
	if !maps.Equal(got, want) {
		t.Errorf("with a log: %v, without: %v", got, want)
	}
	if strings.HasPrefix(want[transfer.Holders], "0 ") {
		t.Error("there are no holders")
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	if info.IsDir() {
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		return
	}
	raw, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestFill_Refuses refuses whatever is no unfinished copy.
func TestFill_Refuses(t *testing.T) {
	refused := func(what, path string, kind authz.Kind, text string) {
		t.Helper()
		f, err := Fill(path)
		if err == nil {
			_ = f.Close()
		}
		if err == nil || authz.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", what, err)
		}
	}
	path := filepath.Join(t.TempDir(), "tollkeeper.db")
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	refused("a file in use", path, authz.KindUnavailable, ErrInUse.Error())
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	refused("a file of a server", path, authz.KindConflict, "nothing is written over it")
	if err := os.WriteFile(path, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("another file", path, authz.KindConflict, "is not a tollkeeper data file")

	path = filepath.Join(t.TempDir(), "tollkeeper.db")
	if err := os.MkdirAll(filepath.Join(logFolder(path), "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	refused("a log without a file", path, authz.KindConflict, "write-ahead log without its file")

	path = filepath.Join(t.TempDir(), "tollkeeper.db")
	f, err := Fill(path)
	if err != nil {
		t.Fatal(err)
	}
	refused("a file that is filled", path, authz.KindUnavailable, ErrInUse.Error())
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); authz.KindOf(err) != authz.KindConflict || !strings.Contains(err.Error(), "unfinished copy") {
		t.Errorf("a file that is not filled yet is opened: %v", err)
	}
	file, err := Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Source(context.Background()); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("a file that is not filled yet is copied: %v", err)
	}
}
