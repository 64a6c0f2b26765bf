package wal

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

var testID = ID{1, 2, 3}

// small makes segments that are full soon.
func small() Options { return Options{ID: testID, SegmentSize: 8 << 10} }

// record is the text of a record, of many sizes.
func record(seq uint64) []byte {
	return bytes.Repeat([]byte(fmt.Sprint("record ", seq, " ")), int(seq*seq%97))
}

// openLog opens a log and returns its records by number.
func openLog(t testing.TB, dir string, o Options) (*Log, map[uint64]string) {
	t.Helper()
	got := make(map[uint64]string)
	l, _, err := Open(dir, o, func(seq uint64, b []byte) error {
		got[seq] = string(b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, got
}

func appendN(t testing.TB, l *Log, n int) (last uint64) {
	t.Helper()
	for range n {
		seq, err := l.Append(record(l.next))
		if err != nil || last != 0 && seq != last+1 {
			t.Fatalf("record %d after %d: %v", seq, last, err)
		}
		last = seq
	}
	return last
}

// wantRecords checks that a log has exactly the records from one number to another.
func wantRecords(t testing.TB, got map[uint64]string, from, to uint64) {
	t.Helper()
	if len(got) != int(to-from+1) {
		t.Errorf("%d records, want those from %d to %d", len(got), from, to)
	}
	for seq := from; seq <= to; seq++ {
		if got[seq] != string(record(seq)) {
			t.Errorf("record %d is %.40q", seq, got[seq])
		}
	}
}

func TestLog_FindsItsRecords(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	last := uint64(0)
	for range 4 {
		l, got := openLog(t, dir, small())
		if last > 0 {
			wantRecords(t, got, 1, last)
		}
		last = appendN(t, l, 100)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	o := small()
	o.Applied = last - 30
	_, got := openLog(t, dir, o)
	wantRecords(t, got, last-29, last)
}

// TestLog_Drop drops segments, whose files are used again. What they had is never read again.
func TestLog_Drop(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l, _ := openLog(t, dir, small())
	applied := uint64(0)
	for range 20 {
		last := appendN(t, l, 60)
		applied = last - 10
		if err := l.Drop(applied); err != nil {
			t.Fatal(err)
		}
		if s := l.Size(); s < 10*512 || s > 100<<10 {
			t.Fatalf("the log has %d bytes", s)
		}
	}
	if n := len(l.free); n == 0 || n > maxFree {
		t.Errorf("%d free files", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o := small()
	o.Applied = applied
	l, got := openLog(t, dir, o)
	wantRecords(t, got, applied+1, applied+10)
	last := appendN(t, l, 40)
	_ = l.Close()
	_, got = openLog(t, dir, o)
	wantRecords(t, got, applied+1, last)
}

func TestRead_AnotherFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l, _ := openLog(t, dir, small())
	appendN(t, l, 3)
	if _, err := Read(dir, ID{9}, 0, nil); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("a log of another file: %v", err)
	}
	if f, err := Read(filepath.Join(dir, "none"), testID, 7, nil); err != nil || f.Last != 7 || f.Segments != 0 {
		t.Errorf("no log: %+v, %v", f, err)
	}
}

// TestRead_MissingRecords loses segments, or is read for an older data file: acknowledged records are missing.
func TestRead_MissingRecords(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l, _ := openLog(t, dir, small())
	last := appendN(t, l, 200)
	_ = l.Close()
	ignore := func(uint64, []byte) error { return nil }
	if f, err := Read(dir, testID, 0, ignore); err != nil || f.Last != last || f.Segments < 4 {
		t.Fatalf("%+v, %v", f, err)
	}
	second := l.segments[1]
	for _, lost := range []int{1, 0} {
		path := l.segments[lost].path
		if err := os.Rename(path, path+".gone"); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(dir, testID, 0, ignore); authz.KindOf(err) != authz.KindConflict {
			t.Errorf("without segment %d: %v", lost, err)
		}
	}
	if f, err := Read(dir, testID, second.last, ignore); err != nil || f.Last != last {
		t.Errorf("what is missing is in the data file: %+v, %v", f, err)
	}
	if _, err := Read(dir, testID, second.last-1, ignore); authz.KindOf(err) != authz.KindConflict {
		t.Errorf("one record is missing: %v", err)
	}
}

// broken is a disk that fails.
type broken struct{ fail bool }

func (b *broken) open(name string, flag int, mode os.FileMode) (*os.File, error) {
	if b.fail {
		return nil, errors.New("no space left")
	}
	return os.OpenFile(name, flag, mode)
}

// TestLog_FailedAppend has appends that fail, with what they wrote on disk whole, in part, or not at all. The record that succeeds
// after them takes their place.
func TestLog_FailedAppend(t *testing.T) {
	for round := range 60 {
		dir := filepath.Join(t.TempDir(), "log")
		disk := &broken{}
		o := small()
		o.OpenFile = disk.open
		l, _ := openLog(t, dir, o)
		appendN(t, l, 1+rand.IntN(30))
		for range 10 {
			failed := bytes.Repeat([]byte("failed "), rand.IntN(500))
			keep := rand.IntN(len(failed) + 600)
			failAppend(t, l, failed, keep)
			if rand.IntN(3) == 0 { // the process is killed before another append
				break
			}
			appendN(t, l, 1+rand.IntN(8))
		}
		last := l.next - 1
		dirty := l.dirty
		_ = l.Close()
		got := make(map[uint64]string)
		f, err := Read(dir, testID, 0, func(seq uint64, b []byte) error { got[seq] = string(b); return nil })
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if dirty && f.Last == last+1 {
			delete(got, f.Last) // the failed one, whole
		} else if f.Last != last {
			t.Fatalf("round %d: read up to %d, want %d", round, f.Last, last)
		}
		wantRecords(t, got, 1, last)
	}
}

// TestLog_FailedAppendAtTheEnd has the last append to a segment fail, though it is on disk. The next one goes to the next segment.
func TestLog_FailedAppendAtTheEnd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l, _ := openLog(t, dir, small())
	long := bytes.Repeat([]byte("x"), 3000)
	want := map[uint64]string{}
	add := func(b []byte) {
		seq, err := l.Append(b)
		if err != nil {
			t.Fatal(err)
		}
		want[seq] = string(b)
	}
	add(long)
	add(long)
	failAppend(t, l, []byte("failed"), 512)
	add(long)
	if len(l.segments) != 2 {
		t.Fatalf("%d segments", len(l.segments))
	}
	_ = l.Close()
	if _, got := openLog(t, dir, small()); !maps.Equal(got, want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
}

// failAppend appends a record of which only some bytes reach the disk.
func failAppend(t *testing.T, l *Log, record []byte, keep int) {
	t.Helper()
	if err := l.makeRoom(len(record)); err != nil {
		t.Fatal(err)
	}
	s := l.current
	frame := alignedBuffer(padded(len(record), s.align))
	putFrame(frame, s.nonce, l.next, record)
	f, err := os.OpenFile(s.path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(frame[:min(keep, len(frame))], s.size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	whole := s.file
	if s.file, err = os.Open(s.path); err != nil { // cannot be written
		t.Fatal(err)
	}
	if _, err := l.Append(record); authz.KindOf(err) != authz.KindUnavailable || !l.dirty {
		t.Fatalf("append to a broken disk: %v", err)
	}
	_ = s.file.Close()
	s.file = whole
}

// TestLog_NoRoomForSegments fills the disk: appends fail when the segment is full, and succeed when there is room again.
func TestLog_NoRoomForSegments(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	disk := &broken{}
	o := small()
	o.OpenFile = disk.open
	l, _ := openLog(t, dir, o)
	appendN(t, l, 1)
	disk.fail = true
	failed := 0
	for range 100 {
		l.prepared.Wait()
		if _, err := l.Append(record(l.next)); err != nil {
			failed++
			if authz.KindOf(err) != authz.KindUnavailable {
				t.Fatal(err)
			}
		}
	}
	if failed < 50 {
		t.Errorf("%d appends failed on a full disk", failed)
	}
	l.prepared.Wait()
	disk.fail = false
	last := appendN(t, l, 50)
	_ = l.Close()
	_, got := openLog(t, dir, small())
	wantRecords(t, got, 1, last)
}

// FuzzRead damages a log from some byte on: what is before is read, and nothing is read that was not written.
func FuzzRead(f *testing.F) {
	f.Add(uint16(700), []byte{1}, uint16(0), false)
	f.Add(uint16(3000), []byte("TKwal"), uint16(900), true)
	f.Add(uint16(44), bytes.Repeat([]byte{0}, 600), uint16(0), false)
	f.Fuzz(func(t *testing.T, from uint16, harm []byte, copied uint16, cut bool) {
		dir := filepath.Join(t.TempDir(), "log")
		l, _ := openLog(t, dir, small())
		appendN(t, l, 12)
		s := l.current
		_ = l.Close()
		text, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		at := int(from) % int(s.size)
		harmed := bytes.Clone(text)
		copy(harmed[at:], harm)
		if copied > 0 { // a piece of the log in another place
			copy(harmed[(at/512+1)*512:], text[int(copied)%len(text):])
		}
		if cut {
			harmed = harmed[:at+len(harm)%(len(harmed)-at)]
		}
		if err := os.WriteFile(s.path, harmed, 0o600); err != nil {
			t.Fatal(err)
		}
		got := make(map[uint64]string)
		_, err = Read(dir, testID, 0, func(seq uint64, b []byte) error { got[seq] = string(b); return nil })
		for seq, b := range got {
			if b != string(record(seq)) {
				t.Errorf("record %d is %.40q", seq, b)
			}
		}
		if err != nil {
			if authz.KindOf(err) != authz.KindConflict {
				t.Error(err)
			}
			return
		}
		end, seq := int64(s.align), uint64(1) // those before the damage
		for ; end+padded(len(record(seq)), s.align) <= int64(at); seq++ {
			end += padded(len(record(seq)), s.align)
			if got[seq] == "" && len(record(seq)) > 0 {
				t.Errorf("record %d is lost, and the damage begins after it", seq)
			}
		}
	})
}

// TestRead_DamageInTheMiddle damages a record that has others after it: they were acknowledged, and so was it.
func TestRead_DamageInTheMiddle(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l, _ := openLog(t, dir, small())
	appendN(t, l, 60)
	_ = l.Close()
	for _, s := range l.segments {
		text, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(text)
		bad[s.align+30] ^= 1 // in its first record
		if err := os.WriteFile(s.path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = Read(dir, testID, 0, func(uint64, []byte) error { return nil })
		if authz.KindOf(err) != authz.KindConflict || !strings.Contains(err.Error(), s.path) {
			t.Errorf("%v", err)
		}
		if err := os.WriteFile(s.path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
