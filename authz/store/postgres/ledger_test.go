package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota/quotatest"
)

// ledgerOf opens a database, whose books are checked when the test ends.
func ledgerOf(t testing.TB, o Options) *Ledger {
	t.Helper()
	s := open(t, o).Ledger()
	t.Cleanup(func() {
		if err := s.Check(context.Background()); err != nil {
			t.Errorf("check: %v", err)
		}
	})
	return s
}

// ledgerTables are what a ledger keeps.
var ledgerTables = []string{"holders", "journal", "settled", "roll"}

// empty deletes all that a ledger keeps. That is faster than another database.
func empty(t testing.TB, url string) {
	t.Helper()
	run(t, url, `DELETE FROM tollkeeper.holders; DELETE FROM tollkeeper.journal; DELETE FROM tollkeeper.settled; UPDATE tollkeeper.roll SET content = '{}'`)
}

func TestLedger_Contract(t *testing.T) {
	for _, parameter := range []string{"", "&default_query_exec_mode=exec"} { // the latter for PgBouncer
		t.Run(parameter, func(t *testing.T) {
			url := migrated(t)
			quotatest.Run(t, func(t *testing.T, now func() time.Time) quota.Ledger {
				empty(t, url)
				s := ledgerOf(t, Options{URL: url + parameter, Now: now})
				hears(t, s.db) // so that its nodes reach each other
				return s
			})
		})
	}
}

// copyTables copies what a ledger keeps. restore brings it back.
func copyTables(t testing.TB, url string) (restore func()) {
	t.Helper()
	name := fmt.Sprintf("copy_%d", time.Now().UnixNano())
	var put, back strings.Builder
	fmt.Fprintf(&put, "CREATE SCHEMA %s;", name)
	for _, table := range ledgerTables {
		fmt.Fprintf(&put, "CREATE TABLE %s.%s AS TABLE tollkeeper.%s;", name, table, table)
		fmt.Fprintf(&back, "DELETE FROM tollkeeper.%s; INSERT INTO tollkeeper.%s TABLE %s.%s;", table, table, name, table)
	}
	run(t, url, put.String())
	return func() { run(t, url, "BEGIN;"+back.String()+"COMMIT") }
}

// timeline has a ledger believe that the server is in another one.
func timeline(s *Ledger) (next func()) {
	var n atomic.Int64
	s.alter = func(t *state) { t.timeline = fmt.Sprint(n.Load()) }
	return func() { n.Add(1) }
}

func TestLedger_LostCommits(t *testing.T) {
	url := migrated(t)
	quotatest.RunLost(t, func(t *testing.T, now func() time.Time) quotatest.Standby {
		empty(t, url)
		s := ledgerOf(t, Options{URL: url, Now: now})
		next := timeline(s)
		return quotatest.Standby{Ledger: s, Copy: func() func() {
			restore := copyTables(t, url)
			return func() {
				next()
				restore()
			}
		}}
	})
}
