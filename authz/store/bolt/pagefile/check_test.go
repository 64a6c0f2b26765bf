package pagefile_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt/pagefile"
)

// snapshotOf is the file as a transaction of bbolt sees it.
func snapshotOf(tx *bbolt.Tx, content []byte) pagefile.Snapshot {
	size := tx.DB().Info().PageSize
	return pagefile.Snapshot{
		File: bytes.NewReader(content), PageSize: size, Pages: uint64(tx.Size()) / uint64(size),
		Root: uint64(tx.Cursor().Bucket().RootPage()), Transaction: uint64(tx.ID()),
	}
}

// both checks a file with this package and, if it is sound by that, with bbolt, whose check would die of some damage. It returns
// whether bbolt opened the file at all, and what each of the two found.
func both(tb testing.TB, path string) (opened bool, theirs []string, ours error) {
	tb.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	db := open(path)
	if db == nil {
		return false, nil, nil
	}
	defer func() { _ = db.Close() }()
	if err := db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > int64(len(content)) {
			ours = fmt.Errorf("the file is too short")
			return nil
		}
		if ours = pagefile.Check(snapshotOf(tx, content)); ours != nil {
			return nil
		}
		for err := range tx.Check() {
			// A page that is neither used nor free is lost, which harms nothing: this package does not look for such pages.
			if !strings.Contains(err.Error(), "unreachable unfreed") {
				theirs = append(theirs, err.Error())
			}
		}
		return nil
	}); err != nil {
		tb.Fatal(err)
	}
	return true, theirs, ours
}

// open opens a file for reading, nil if bbolt refuses it or dies of it.
func open(path string) (db *bbolt.DB) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			db = nil
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return nil
	}
	return db
}

// TestCheck_SoundFiles makes random files with bbolt and finds nothing wrong with them, as bbolt does.
func TestCheck_SoundFiles(t *testing.T) {
	dir, n := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		path := filepath.Join(dir, fmt.Sprint(n))
		write(rt, path, func(tx *bbolt.Tx) error {
			for range rapid.IntRange(1, 40).Draw(rt, "writes") {
				if err := randomWrite(rt, tx); err != nil {
					return err
				}
			}
			return nil
		})
		opened, theirs, ours := both(t, path)
		if !opened || ours != nil || len(theirs) > 0 {
			rt.Fatalf("opened %v, ours: %v, theirs: %v", opened, ours, theirs)
		}
		_ = os.Remove(path)
	})
}

// randomWrite puts or deletes many keys, of which some values need pages of their own, in buckets and buckets within buckets.
func randomWrite(t *rapid.T, tx *bbolt.Tx) error {
	b, err := tx.CreateBucketIfNotExists([]byte(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "bucket")))
	if err != nil {
		return err
	}
	if rapid.Bool().Draw(t, "nested") {
		if b, err = b.CreateBucketIfNotExists([]byte("nested")); err != nil {
			return err
		}
	}
	from, many := rapid.IntRange(0, 300).Draw(t, "from"), rapid.IntRange(1, 60).Draw(t, "many")
	value := make([]byte, rapid.SampledFrom([]int{0, 10, 300, 10_000}).Draw(t, "size"))
	remove := rapid.IntRange(0, 3).Draw(t, "remove") == 0
	for i := from; i < from+many; i++ {
		key := fmt.Appendf(nil, "key %d", i)
		if remove {
			err = b.Delete(key)
		} else {
			err = b.Put(key, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type failer interface{ Fatal(...any) }

func write(t failer, path string, fn func(*bbolt.Tx) error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.Update(fn); err != nil {
		t.Fatal(err)
	}
}

// fill writes keys, in order, into a bucket and one within it.
func fill(tx *bbolt.Tx, keys int) error {
	b, err := tx.CreateBucketIfNotExists([]byte("bucket"))
	if err != nil {
		return err
	}
	small, err := b.CreateBucketIfNotExists([]byte("small"))
	if err != nil {
		return err
	}
	if err := small.Put([]byte("key"), []byte("value")); err != nil {
		return err
	}
	for i := range keys {
		if err := b.Put(fmt.Appendf(nil, "key %07d", i), make([]byte, 100)); err != nil {
			return err
		}
	}
	return b.Put([]byte("large"), make([]byte, 20_000))
}

// sample is a small file with every type of page in it, and with free pages.
func sample(tb testing.TB) []byte {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "sample")
	write(tb, path, func(tx *bbolt.Tx) error { return fill(tx, 300) })
	write(tb, path, func(tx *bbolt.Tx) error { return fill(tx, 100) })
	content, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return content
}

// FuzzCheck damages a file. Where this package finds nothing, bbolt reads the whole file without dying, and finds nothing.
func FuzzCheck(f *testing.F) {
	content := sample(f)
	path := filepath.Join(f.TempDir(), "damaged")
	pageSize := os.Getpagesize()
	f.Add(uint32(0), uint32(0), byte(0), false)
	for page := range uint32(len(content) / pageSize) {
		for _, at := range []uint32{0, 8, 10, 12, 16, 20, 24, 28, 48, 64, 80} { // in the header, the first elements, and the meta data
			f.Add(page, at, byte(1), false)
		}
		f.Add(page, page+1, byte(0), true)
	}
	f.Fuzz(func(t *testing.T, page, at uint32, flip byte, swap bool) {
		damaged := bytes.Clone(content)
		begin := int(page) % (len(content) / pageSize) * pageSize
		if header := 16; begin/pageSize < 2 && (swap || int(at)%pageSize < header) {
			return // bbolt writes the headers of the meta pages, and reads them in its check alone
		}
		if swap { // one page in the place of another
			copy(damaged[begin:begin+pageSize], content[int(at)%(len(content)/pageSize)*pageSize:])
		} else {
			damaged[begin+int(at)%pageSize] ^= flip
		}
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		_, theirs, ours := both(t, path)
		if len(theirs) > 0 {
			t.Fatalf("nothing was found where bbolt finds %v", theirs)
		}
		if bytes.Equal(damaged, content) && ours != nil {
			t.Fatalf("the file is whole: %v", ours)
		}
	})
}

// TestCheck_FindsDamage makes every kind of damage by hand.
func TestCheck_FindsDamage(t *testing.T) {
	content := sample(t)
	path := filepath.Join(t.TempDir(), "sample")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	db := open(path)
	if db == nil {
		t.Fatal("the sample cannot be opened")
	}
	defer func() { _ = db.Close() }()
	tx, err := db.Begin(false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	bucket := int(tx.Bucket([]byte("bucket")).RootPage()) * os.Getpagesize() // a branch page
	root := int(tx.Cursor().Bucket().RootPage()) * os.Getpagesize()
	for name, c := range map[string]struct {
		at    int
		bytes []byte
		words string
	}{
		"page that points at itself": {bucket + 16 + 8, content[bucket : bucket+8], "used twice"},
		"page outside":               {bucket + 16 + 8, []byte{0xff, 0xff, 0xff}, "outside"},
		"page without elements":      {bucket + 10, []byte{0, 0}, "leads nowhere"},
		"more elements than fit":     {bucket + 10, []byte{0xff, 0xff}, "room for fewer"},
		"key outside":                {bucket + 16, []byte{0xff, 0xff, 0xff}, "key outside"},
		"keys out of order":          {bucket + 16 + 16 + 4, []byte{1, 0}, "out of order"},
		"page of another type":       {bucket + 8, []byte{0x10}, "has type"},
		"page of another number":     {bucket, []byte{0x63}, "says that it is page"},
		"pages that do not end":      {bucket + 12, []byte{0xff, 0xff, 0xff}, "goes on until outside"},
		"value outside":              {root + 16 + 12, []byte{0xff, 0xff, 0xff}, "value outside"},
		"bucket cut short":           {root + 16 + 12, []byte{3, 0, 0, 0}, "cut short"},
	} {
		damaged := bytes.Clone(content)
		copy(damaged[c.at:], c.bytes)
		err := pagefile.Check(snapshotOf(tx, damaged))
		if authz.KindOf(err) != authz.KindConflict || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	short := snapshotOf(tx, content[:len(content)/2])
	if err := pagefile.Check(short); authz.KindOf(err) != authz.KindUnavailable || err == nil {
		t.Errorf("a file that cannot be read to its end: %v", err)
	}
}

// BenchmarkCheck checks a file with a hundred thousand keys with this package, and as bbolt itself would.
func BenchmarkCheck(b *testing.B) {
	path := filepath.Join(b.TempDir(), "file")
	write(b, path, func(tx *bbolt.Tx) error { return fill(tx, 100_000) })
	db := open(path)
	if db == nil {
		b.Fatal("the file cannot be opened")
	}
	defer func() { _ = db.Close() }()
	file, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	tx, err := db.Begin(false)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	s := snapshotOf(tx, nil)
	s.File = file
	b.Run("device=on", func(b *testing.B) {
		for b.Loop() {
			if err := pagefile.Check(s); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("device=off", func(b *testing.B) {
		for b.Loop() {
			for err := range tx.Check() {
				b.Fatal(err)
			}
		}
	})
}
