package faulttest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres/pgtest"
)

// TestPause stops all processes of the server for ten seconds: connections stay, and nothing answers.
func TestPause(t *testing.T) {
	t.Parallel()
	s, url := startServer(t)
	r := newRig(t)
	r.start(postgres.Options{URL: url})
	must(t, s.Pause())
	time.Sleep(10 * time.Second)
	r.phase("stopped")
	must(t, s.Resume())
	r.mended()
	r.settle(false)
}

// TestCut cuts connections in the middle of commits, before the server has them and after.
func TestCut(t *testing.T) {
	t.Parallel()
	s, url := startServer(t)
	proxy, r := pgtest.NewProxy(t, s), newRig(t)
	r.start(postgres.Options{URL: proxy.URL(url)})
	var longest time.Duration
	const cuts = 20
	for i := range cuts {
		proxy.Cut("commit", i%2 == 0)
		r.await("a connection was cut", func() bool { return proxy.Cuts() == i+1 })
		longest = max(longest, r.recovered())
	}
	r.phase(fmt.Sprintf("%d connections cut", cuts))
	t.Logf("all serve again after at most %v", longest.Round(time.Millisecond))
	r.settle(false)
}

// TestReadOnly has a server refuse writes on connections that stay, as after a failover that leaves them open.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	s, url := startServer(t)
	r := newRig(t)
	r.start(postgres.Options{URL: url})
	must(t, s.Set(t.Context(), "default_transaction_read_only", "on"))
	r.felt()
	r.phase("read-only")
	must(t, s.Set(t.Context(), "default_transaction_read_only", "off"))
	r.mended()
	r.settle(false)
}

// TestTooManyConnections has others take all connections that the nodes lose.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	s, url := startServer(t, "max_connections = 16", "superuser_reserved_connections = 3")
	r := newRig(t)
	r.start(postgres.Options{URL: url, MaxConnections: 4})
	admin, err := pgx.Connect(t.Context(), s.SocketURL("tollkeeper"))
	must(t, err)
	var others []*pgx.Conn
	r.await("others have all connections", func() bool {
		for {
			conn, err := pgx.Connect(t.Context(), url+"&application_name=other")
			if err != nil {
				break
			}
			others = append(others, conn)
		}
		var left int
		must(t, admin.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE usename = 'tollkeeper' AND application_name <> 'other'`).Scan(&left))
		return left == 0
	})
	r.phase("connections taken over")
	r.felt()
	r.phase("no connections")
	for _, conn := range others {
		must(t, conn.Close(t.Context()))
	}
	must(t, admin.Close(t.Context()))
	r.mended()
	r.settle(false)
}

// TestFullDisk fills the disk. PostgreSQL cannot write its log and ends, and is started again when there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s, url := startServer(t)
	r := newRig(t)
	r.start(postgres.Options{URL: url})
	empty, err := s.Fill()
	must(t, err)
	r.felt()
	r.phase("disk full")
	empty()
	must(t, s.Restart())
	r.mended()
	r.settle(false)
}

// TestPassword_Rotated changes the password in the server first, and in the file of the nodes later.
func TestPassword_Rotated(t *testing.T) {
	t.Parallel()
	s, url := startServer(t)
	file, r := filepath.Join(t.TempDir(), "url"), newRig(t)
	must(t, os.WriteFile(file, []byte(url), 0o600))
	r.start(postgres.Options{URLFile: file})
	must(t, s.Exec(t.Context(), "postgres", "ALTER ROLE tollkeeper PASSWORD 'another'"))
	r.recovered() // connections outlive their password
	must(t, s.Exec(t.Context(), "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tollkeeper'"))
	r.felt()
	r.phase("wrong password")
	must(t, os.WriteFile(file, []byte(strings.Replace(url, pgtest.Password, "another", 1)), 0o600))
	r.mended()
	r.settle(false)
}

// TestSlow has somebody lock the records for longer than a statement may take.
func TestSlow(t *testing.T) {
	t.Parallel()
	s, url := startServer(t)
	r := newRig(t)
	r.start(postgres.Options{URL: url, StatementTimeout: 500 * time.Millisecond})
	other, err := pgx.Connect(t.Context(), s.SocketURL("tollkeeper"))
	must(t, err)
	tx, err := other.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), "LOCK TABLE tollkeeper.holders IN ACCESS EXCLUSIVE MODE")
	must(t, err)
	unavailable := r.count("new unavailable")
	r.await("the fault is felt", func() bool { return r.count("new unavailable") > unavailable+20 })
	r.phase("records locked")
	must(t, tx.Rollback(t.Context()))
	must(t, other.Close(t.Context()))
	r.mended()
	r.settle(false)
}
