package postgres

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/transfer"
)

// conflict fails the test unless an error is of KindConflict and has that text.
func conflict(t *testing.T, what string, err error, text string) {
	t.Helper()
	if err == nil || authz.KindOf(err) != authz.KindConflict || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, want %q", what, err, text)
	}
}

// TestOpenSource_Refuses refuses a database that is written to, or that has nothing.
func TestOpenSource_Refuses(t *testing.T) {
	url := owned(migrated(t))
	o := Options{URL: url}
	_, err := OpenSource(t.Context(), o)
	conflict(t, "a new database", err, "nothing to copy")
	open(t, Options{URL: url, Pepper: "p"})
	roll := quota.Roll{}
	roll.Renew("a-node", quota.Standing{}, time.Now())
	text, err := json.Marshal(&roll)
	if err != nil {
		t.Fatal(err)
	}
	run(t, url, fmt.Sprintf("UPDATE tollkeeper.roll SET content = '%s'", text))
	_, err = OpenSource(t.Context(), o)
	conflict(t, "a database that is served", err, "servers use the database (a-node)")
	_, err = OpenFilling(t.Context(), o)
	conflict(t, "a database that is served", err, "servers use the database (a-node)")

	roll.Renew("b-node", quota.Standing{}, time.Now().Add(-time.Hour))
	text, err = json.Marshal(&roll)
	if err != nil {
		t.Fatal(err)
	}
	run(t, url, fmt.Sprintf("UPDATE tollkeeper.roll SET content = '%s'", strings.ReplaceAll(string(text), "20", "19")))
	s, err := OpenSource(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	keys := open(t, Options{URL: url, Pepper: "p", StatementTimeout: 100 * time.Millisecond}).Keys()
	if _, err := keys.CreateAccount(t.Context(), apikey.Account{ID: "a"}); authz.KindOf(err) != authz.KindUnavailable {
		t.Errorf("a database is written to while it is copied: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.CreateAccount(t.Context(), apikey.Account{ID: "a"}); err != nil {
		t.Errorf("after the copy: %v", err)
	}
}

// TestOpenFilling_Refuses refuses a database with content, and one that another copy writes to.
func TestOpenFilling_Refuses(t *testing.T) {
	url := owned(migrated(t))
	o := Options{URL: url}
	info := transfer.Info{Store: "s", State: "1", Pepper: "p", Revision: 7}
	one, err := OpenFilling(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = one.Close() }()
	two, err := OpenFilling(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = two.Close() }()
	if _, err := one.Begin(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	_, err = two.Begin(t.Context(), info)
	conflict(t, "two copies", err, "another copy writes into the database")
	_, err = OpenSource(t.Context(), o)
	conflict(t, "an unfinished copy", err, "an unfinished copy")
	refused(t, Options{URL: url, Pepper: "p"}, authz.KindConflict, "an unfinished copy")
	if err := one.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}

	// What is written from now on has later revisions than what was copied.
	db := open(t, Options{URL: url, Pepper: "p"})
	r, err := db.Revocations().Add(t.Context(), revocation.Record{Kind: revocation.KindKey, Value: "k", At: time.Now()})
	if err != nil || r.Revision <= info.Revision {
		t.Errorf("revision %d, %v", r.Revision, err)
	}
	_, err = OpenFilling(t.Context(), o)
	conflict(t, "a database with content", err, "not empty")
	refused(t, Options{URL: url, Pepper: "q"}, authz.KindConflict, "another pepper")
}

// TestFilling_NameTooLong says which name PostgreSQL cannot hold.
func TestFilling_NameTooLong(t *testing.T) {
	f, err := OpenFilling(t.Context(), Options{URL: owned(migrated(t))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	p, err := f.Begin(t.Context(), transfer.Info{Store: "s"})
	if err != nil {
		t.Fatal(err)
	}
	long := transfer.OfAccount(&apikey.Account{ID: strings.Repeat("long", 1000)})
	p.Section, p.Copied = transfer.Accounts, map[transfer.Section]int64{transfer.Accounts: 1}
	err = f.Write(t.Context(), []transfer.Entry{long}, p)
	if authz.KindOf(err) != authz.KindInvalid || !strings.Contains(err.Error(), `"longlong`) {
		t.Errorf("a name that is too long: %v", err)
	}
	if len(err.Error()) > 400 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
}
