package pgtest

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
)

// Standby makes and starts a server that follows this one over a URL, which is s.URLOf(Superuser, "postgres") or leads there through a
// proxy. Commits do not wait for it, unless Synchronous says so. The caller calls Close.
func (s *Server) Standby(url string) (*Server, error) {
	n := &Server{bin: s.bin}
	if err := n.makeDir(); err != nil {
		return nil, err
	}
	backup := n.command("pg_basebackup", "--dbname="+url, "--pgdata="+n.data(), "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
	if out, err := backup.CombinedOutput(); err != nil {
		_ = os.RemoveAll(n.dir)
		return nil, fmt.Errorf("pg_basebackup: %w\n%s", err, out)
	}
	if err := n.run(); err != nil {
		return nil, err
	}
	return n, nil
}

// Synchronous has commits wait until a standby has them on its disk, and returns when that is so.
func (s *Server) Synchronous(ctx context.Context) error {
	if err := s.Set(ctx, "synchronous_standby_names", "*"); err != nil {
		return err
	}
	return s.await(ctx, `SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')`)
}

// Set changes a setting of the running server. Sessions take it over with their next transaction.
func (s *Server) Set(ctx context.Context, name, value string) error {
	if err := s.Exec(ctx, "postgres", fmt.Sprintf("ALTER SYSTEM SET %s = '%s'", name, value)); err != nil {
		return err
	}
	return s.Exec(ctx, "postgres", "SELECT pg_reload_conf()")
}

// Promote makes a standby a primary, with the commits that it has.
func (s *Server) Promote(ctx context.Context) error {
	if err := s.Exec(ctx, "postgres", "SELECT pg_promote()"); err != nil {
		return err
	}
	return s.await(ctx, "SELECT NOT pg_is_in_recovery()")
}

// await asks until the answer is true.
func (s *Server) await(ctx context.Context, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.SocketURL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for {
		var yes bool
		if err := conn.QueryRow(ctx, sql).Scan(&yes); err != nil || yes {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}
