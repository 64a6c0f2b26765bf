package bolt_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey/apikeytest"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation/revocationtest"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// open opens a new file, and checks and closes it when the test ends.
func open(t *testing.T, now func() time.Time) *bolt.DB {
	t.Helper()
	db, err := bolt.Open(filepath.Join(t.TempDir(), "data", "tollkeeper.db"), bolt.Options{Pepper: "none", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { checkAndClose(t, db) })
	return db
}

func checkAndClose(t *testing.T, db *bolt.DB) {
	t.Helper()
	if err := db.Check(context.Background()); err != nil {
		t.Errorf("check: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestKeys_Contract(t *testing.T) {
	apikeytest.Run(t, func(t *testing.T, now func() time.Time) apikey.Store { return open(t, now).Keys() })
}

func TestRevocations_Contract(t *testing.T) {
	revocationtest.Run(t, func(t *testing.T, now func() time.Time) revocation.Store { return open(t, now).Revocations() })
}

func TestLedger_Contract(t *testing.T) {
	quotatest.Run(t, func(t *testing.T, now func() time.Time) quota.Ledger { return open(t, now).Ledger() })
}
