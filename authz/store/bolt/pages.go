package bolt

import (
	"os"

	"go.etcd.io/bbolt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt/pagefile"
)

// checkPages checks the pages that the transaction can reach. No other read of a file may come before it: bbolt dies
// of damaged pages.
func checkPages(tx *bbolt.Tx) error {
	f, err := os.Open(tx.DB().Path())
	if err != nil {
		return authz.Errorf(authz.KindUnavailable, "cannot read the data file: %w", err)
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || info.Size() < tx.Size() {
		return damaged("its end is missing")
	}
	size := tx.DB().Info().PageSize
	return pagefile.Check(pagefile.Snapshot{
		File: f, PageSize: size, Pages: uint64(tx.Size()) / uint64(size), Root: uint64(tx.Cursor().Bucket().RootPage()), Transaction: uint64(tx.ID()),
	})
}

func damaged(format string, args ...any) error {
	return authz.Errorf(authz.KindConflict, "the file is damaged: "+format, args...)
}
