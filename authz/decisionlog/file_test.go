package decisionlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// rotation is a log on a file. The test runs its writer.
type rotation struct {
	*testing.T
	path string
	l    *Log
	out  *writer
	file *File
}

func newRotation(t *testing.T, before string) *rotation {
	t.Helper()
	path := filepath.Join(t.TempDir(), "decisions.log")
	if before != "" {
		if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file, err := OpenFile(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l := newLog(slog.New(slog.DiscardHandler))
	r := &rotation{t, path, l, &writer{w: file, l: l}, file}
	t.Cleanup(func() { _ = file.Close() })
	return r
}

func (r *rotation) decide(n int) {
	for range n {
		r.l.Record(entry())
	}
	r.out.flush()
}

// want checks that a file has that many lines, all of them whole.
func (r *rotation) want(path string, n int) {
	r.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		r.Fatal(err)
	}
	whole := 0
	for line := range bytes.Lines(raw) {
		if json.Valid(line) && bytes.HasSuffix(line, []byte("\n")) {
			whole++
		}
	}
	if lines := bytes.Count(raw, []byte("\n")); lines != n || whole != n {
		r.Errorf("%s has %d lines, %d of them whole, want %d:\n%s", filepath.Base(path), lines, whole, n, raw)
	}
}

func (r *rotation) do(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func TestFile_MovedOrRemoved(t *testing.T) {
	r := newRotation(t, "")
	r.decide(2)
	r.do(os.Rename(r.path, r.path+".1"))
	r.decide(3)
	r.want(r.path+".1", 2)
	r.want(r.path, 3)

	r.do(os.Rename(r.path, r.path+".2")) // logrotate with create
	r.do(os.WriteFile(r.path, nil, 0o600))
	r.decide(4)
	r.want(r.path+".2", 3)
	r.want(r.path, 4)

	r.do(os.Remove(r.path))
	r.decide(1)
	r.want(r.path, 1)

	// No decision is needed for a moved file to be closed.
	r.do(os.Rename(r.path, r.path+".3"))
	r.l.Reopen()
	<-r.l.wake
	r.out.flush()
	r.want(r.path, 0)
	if n := r.l.Dropped(); n != 0 {
		t.Errorf("%d decisions were dropped", n)
	}
}

// TestFile_Emptied is logrotate with copytruncate.
func TestFile_Emptied(t *testing.T) {
	r := newRotation(t, "")
	r.decide(5)
	r.do(os.Truncate(r.path, 0))
	r.decide(2)
	r.want(r.path, 2)
}

// TestFile_CannotBeMadeAnew: decisions still go to the file that was moved, until a new file can be made.
func TestFile_CannotBeMadeAnew(t *testing.T) {
	r := newRotation(t, "")
	said := new(bytes.Buffer)
	r.file.log = slog.New(slog.NewTextHandler(said, nil))
	r.decide(1)
	r.do(os.Rename(r.path, r.path+".1"))
	r.do(os.Mkdir(r.path, 0o700)) // root may write anywhere, but not into a folder
	r.decide(2)
	r.decide(2)
	r.want(r.path+".1", 5)
	r.do(os.Remove(r.path))
	r.decide(3)
	r.want(r.path, 3)
	if strings.Count(said.String(), "level=ERROR") != 1 || r.l.Dropped() != 0 {
		t.Errorf("%d dropped, and said:\n%s", r.l.Dropped(), said)
	}
}

// TestFile_HalfALine: half a line from before a crash does not spoil the next one, and stays in its file.
func TestFile_HalfALine(t *testing.T) {
	r := newRotation(t, `{"decision_id":"d0"`)
	r.decide(2)
	raw, err := os.ReadFile(r.path)
	if lines := bytes.Split(raw, []byte("\n")); err != nil || len(lines) != 4 || !json.Valid(lines[1]) || !json.Valid(lines[2]) {
		t.Errorf("%v\n%s", err, raw)
	}
	r.out.torn = true // as after a disk that was full
	r.do(os.Rename(r.path, r.path+".1"))
	r.decide(2)
	r.want(r.path, 2)
}

// TestFile_RotatedUnderLoad moves the file again and again during many decisions, and counts all lines.
func TestFile_RotatedUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decisions.log")
	file, err := OpenFile(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l := New(file, slog.New(slog.DiscardHandler))
	const deciders, each = 4, 500
	var wg sync.WaitGroup
	for range deciders {
		wg.Go(func() {
			for range each {
				l.Record(entry())
			}
		})
	}
	var moved []string
	for stop := make(chan struct{}); ; {
		if len(moved) == 0 {
			go func() { wg.Wait(); close(stop) }()
		}
		next := fmt.Sprintf("%s.%d", path, len(moved))
		if os.Rename(path, next) == nil {
			moved = append(moved, next)
			l.Reopen()
		}
		select {
		case <-stop:
		default:
			continue
		}
		break
	}
	l.Close()
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, name := range append(moved, path) {
		raw, err := os.ReadFile(name)
		if err != nil && name != path {
			t.Fatal(err)
		}
		for line := range bytes.Lines(raw) {
			if !json.Valid(line) {
				t.Fatalf("a torn line: %s", line)
			}
			lines++
		}
	}
	if uint64(lines)+l.Dropped() != deciders*each || l.Dropped() != 0 {
		t.Errorf("%d lines and %d dropped, want %d", lines, l.Dropped(), deciders*each)
	}
}
