package pagefile_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt/pagefile"
)

// treesOf are the buckets of a file that have pages of their own, by name.
func treesOf(tx *bbolt.Tx, content []byte) map[string]*pagefile.Tree {
	out := make(map[string]*pagefile.Tree)
	_ = tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if root := b.RootPage(); root != 0 {
			out[string(name)] = pagefile.NewTree(bytes.NewReader(content), tx.DB().Info().PageSize, uint64(root))
		}
		return nil
	})
	return out
}

// get is Tree.Get with a copy of the value.
func get(t *pagefile.Tree, key []byte) (value []byte, ok bool, err error) {
	ok, err = t.Get(key, func(v []byte) error {
		value = bytes.Clone(v)
		return nil
	})
	return value, ok, err
}

// TestTree_FindsWhatBboltFinds makes random files with bbolt and looks up every key, and others, in both.
func TestTree_FindsWhatBboltFinds(t *testing.T) {
	dir, n, deep := t.TempDir(), 0, 0
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
		content, err := os.ReadFile(path)
		db := open(path)
		if err != nil || db == nil {
			rt.Fatal("cannot open the file", err)
		}
		defer func() { _ = db.Close() }()
		_ = db.View(func(tx *bbolt.Tx) error {
			for name, tree := range treesOf(tx, content) {
				b := tx.Bucket([]byte(name))
				deep = max(deep, b.Inspect().KeyN)
				for i := range 400 {
					for _, key := range []string{fmt.Sprint("key ", i), fmt.Sprint("key ", i, "x"), "", "a", "z"} {
						if b.Bucket([]byte(key)) != nil {
							continue
						}
						want := b.Get([]byte(key))
						if got, ok, err := get(tree, []byte(key)); err != nil || ok != (want != nil) || !bytes.Equal(got, want) {
							rt.Fatalf("%q: %d bytes, %v, %v, want %d bytes", key, len(got), ok, err, len(want))
						}
					}
				}
			}
			return nil
		})
		_ = os.Remove(path)
	})
	if deep < 100 {
		t.Errorf("no bucket had more than %d keys", deep)
	}
}

// TestTree_Damage flips bits of a file: a look-up finds something, nothing, or a fault of KindUnavailable, and never panics.
func TestTree_Damage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("a"))
		for i := 0; i < 5000 && err == nil; i++ {
			err = b.Put(fmt.Appendf(nil, "key %d", i), make([]byte, i%100))
		}
		return err
	})
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	db, faults := open(path), 0
	defer func() { _ = db.Close() }()
	_ = db.View(func(tx *bbolt.Tx) error {
		for range 300 {
			damaged := bytes.Clone(content)
			for at := 2 * 4096; at < len(damaged); at += 4096 { // in every page, near its beginning
				damaged[at+rand.IntN(300)] ^= 1 << rand.IntN(8)
			}
			if rand.IntN(10) == 0 {
				damaged = damaged[:rand.IntN(len(damaged))]
			}
			tree := treesOf(tx, damaged)["a"]
			for i := range 50 {
				if _, _, err := get(tree, fmt.Appendf(nil, "key %d", i*100)); err != nil {
					faults++
					if authz.KindOf(err) != authz.KindUnavailable {
						t.Fatal(err)
					}
				}
			}
		}
		return nil
	})
	if faults == 0 {
		t.Error("no damage was found")
	}
}
