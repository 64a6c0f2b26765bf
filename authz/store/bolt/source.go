package bolt

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/transfer"
)

// Source is a file that is open for reading only, as something to copy.
type Source struct {
	entries
	info transfer.Info
}

var _ transfer.Source = (*Source)(nil)

// Source returns what the file and its write-ahead log have. The error is of KindConflict if that cannot be copied.
func (f *File) Source(ctx context.Context) (*Source, error) {
	s := &Source{entries: entries{view: func(ctx context.Context, read func(*bbolt.Tx) error) error { return viewFile(ctx, f.bolt, read) }}}
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		if err := checkPages(tx); err != nil {
			return err
		}
		if err := checkCurrent(tx); err != nil {
			return err
		}
		whole := &snapshot{tx: tx}
		if err := f.readLog(whole); err != nil {
			return err
		}
		if n, err := leftBooks(whole); n > 0 || err != nil {
			return cmp.Or(err, authz.Errorf(authz.KindConflict,
				"%d books are of an older version, which kept several limits in one, and are taken apart when their holders come: they cannot be copied", n))
		}
		for _, c := range sorted(whole.layers) {
			s.added[c.bucket] = append(s.added[c.bucket], c)
		}
		s.info = infoOf(whole)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// leftBooks counts the books that oldbooks.go keeps.
func leftBooks(s *snapshot) (n int, err error) {
	err = s.forEach(bucketBooks, func(_, _ []byte) error { n++; return nil })
	return n, err
}

func infoOf(s *snapshot) transfer.Info {
	meta := s.tx.Bucket([]byte(bucketMeta))
	var last uint64
	if n := len(s.layers); n > 0 {
		last = s.layers[n-1].last
	}
	return transfer.Info{
		Store: "file " + hex.EncodeToString(meta.Get(metaLogID)), State: fmt.Sprintf("transaction %d, record %d", s.tx.ID(), last),
		Pepper: string(meta.Get([]byte("pepper"))), Revision: s.tx.Bucket([]byte(bucketRevisions)).Sequence(),
	}
}

// Info is transfer.Source.Info.
func (s *Source) Info() transfer.Info { return s.info }
