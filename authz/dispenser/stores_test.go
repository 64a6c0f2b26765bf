package dispenser_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

// eachStore runs a test over the ledger of every store: what nodes do with one must not depend on which it is.
func eachStore(t *testing.T, test func(t *testing.T, ledger quota.Ledger)) {
	t.Run("memory", func(t *testing.T) { test(t, memory.NewLedger(time.Now)) })
	t.Run("bolt", func(t *testing.T) {
		db, err := bolt.Open(filepath.Join(t.TempDir(), "tollkeeper.db"), bolt.Options{Pepper: "none"})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := db.Check(t.Context()); err != nil {
				t.Error(err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}()
		test(t, db.Ledger())
	})
}
