package localcopy_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/store/localcopy"
)

var noon = time.Date(2024, 5, 15, 12, 0, 0, 0, time.UTC)

// write makes a published copy: entries one and two, a mark at noon, three, a mark a second later, four.
func write(t *testing.T, path string) {
	t.Helper()
	w, err := localcopy.Create(path, []byte("head"))
	if err != nil {
		t.Fatal(err)
	}
	add := func(text string) {
		t.Helper()
		if err := w.Add(7, []byte(text[:1]), []byte(text[1:])); err != nil {
			t.Fatal(err)
		}
	}
	mark := func(at time.Time, position string) {
		t.Helper()
		if err := w.Mark(at, []byte(position)); err != nil {
			t.Fatal(err)
		}
	}
	add("one")
	add("two")
	mark(noon, "first")
	if err := w.Publish(); err != nil {
		t.Fatal(err)
	}
	add("three")
	mark(noon.Add(time.Second), "second")
	add("four")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// read returns what a copy says.
func read(path, head string) string {
	var out []string
	m, err := localcopy.Read(path, []byte(head), func(kind byte, body []byte) error {
		out = append(out, fmt.Sprint(kind, string(body)))
		return nil
	})
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(strings.Join(out, " "), " ", string(m.Position), " +", m.At.Sub(noon))
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "copy")
	if _, err := localcopy.Read(path, nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	write(t, path)
	if got, want := read(path, "head"), "7one 7two 7three 7four second +1s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := read(path, "another head"); got != localcopy.ErrUnusable.Error() {
		t.Errorf("a copy of another store: %q", got)
	}
	stop := errors.New("enough")
	if _, err := localcopy.Read(path, []byte("head"), func(byte, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of the visitor: %v", err)
	}
}

// TestRead_Damaged cuts a copy off at each byte, and changes each byte: what is read is always what was written up to some entry,
// with a mark before that.
func TestRead_Damaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "copy")
	write(t, path)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sound := map[string]bool{
		localcopy.ErrUnusable.Error(): true, "7one 7two first +0s": true, "7one 7two 7three first +0s": true,
		"7one 7two 7three second +1s": true, "7one 7two 7three 7four second +1s": true,
	}
	seen := make(map[string]bool)
	for i := range whole {
		changed := append([]byte{}, whole...)
		changed[i] ^= 0x40
		for what, content := range map[string][]byte{"cut off at": whole[:i], "changed at": changed} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			got := read(path, "head")
			if !sound[got] || what == "changed at" && strings.HasSuffix(got, "four second +1s") {
				t.Errorf("%s %d: %q", what, i, got)
			}
			seen[got] = true
		}
	}
	if len(seen) != 4 {
		t.Errorf("seen %v", seen)
	}
}

// TestWriter_Unpublished leaves the copy before in place.
func TestWriter_Unpublished(t *testing.T) {
	path := filepath.Join(t.TempDir(), "copy")
	write(t, path)
	before := read(path, "head")
	w, err := localcopy.Create(path, []byte("head"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Add(1, []byte("x")), w.Mark(noon, nil)); err != nil {
		t.Fatal(err)
	}
	if got := read(path, "head"); got != before {
		t.Errorf("%q, want %q", got, before)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}
