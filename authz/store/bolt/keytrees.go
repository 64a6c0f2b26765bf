package bolt

import (
	"os"
	"slices"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt/pagefile"
)

// The buckets that checks read.
const (
	treeDigests = iota
	treeAccounts
	treeCount
)

var treeBuckets = [treeCount]string{treeDigests: bucketDigests, treeAccounts: bucketAccounts}

// newVersion raises the sequence of a bucket that checks read. Every write does it: the sequence names the version of the bucket.
func newVersion(bucket string, b *bbolt.Bucket) error {
	if !slices.Contains(treeBuckets[:], bucket) {
		return nil
	}
	_, err := b.NextSequence()
	return err
}

// trees are the buckets that checks read, as one transaction sees them.
type trees struct {
	transaction int
	of          [treeCount]bucketTree
}

// bucketTree is one version of a bucket. Its pages may be used again for another version once no transaction sees it, so a root
// alone does not name a version.
type bucketTree struct {
	root, sequence uint64
	tree           *pagefile.Tree // nil if the bucket has no page of its own
}

// get calls found with the value of a key, or returns false if there is none.
func (t *trees) get(tx *bbolt.Tx, bucket int, key []byte, found func(value []byte) error) (bool, error) {
	if tree := t.of[bucket].tree; tree != nil {
		// Nearly always the key is there: the digests in memory refuse unknown keys. So bbolt confirms that one is not.
		if ok, err := tree.Get(key, found); ok || err != nil {
			return ok, err
		}
	}
	v := tx.Bucket([]byte(treeBuckets[bucket])).Get(key)
	if v == nil {
		return false, nil
	}
	return true, found(v)
}

// treeCache holds the trees that were used last, with their branch pages.
type treeCache struct {
	file     *os.File
	pageSize int
	last     atomic.Pointer[trees]
}

// of returns the trees of a transaction. Most commits change none of them.
func (c *treeCache) of(tx *bbolt.Tx) *trees {
	last := c.last.Load()
	if last != nil && last.transaction == tx.ID() {
		return last
	}
	next := &trees{transaction: tx.ID()}
	for i, name := range treeBuckets {
		b := tx.Bucket([]byte(name))
		t := bucketTree{root: uint64(b.RootPage()), sequence: b.Sequence()}
		switch {
		case last != nil && last.of[i].root == t.root && last.of[i].sequence == t.sequence:
			t = last.of[i]
		case t.root != 0:
			t.tree = pagefile.NewTree(c.file, c.pageSize, t.root)
		}
		next.of[i] = t
	}
	c.last.CompareAndSwap(last, next)
	return next
}
