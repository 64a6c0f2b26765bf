package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// Options are the arguments of Open and Migrate.
type Options struct {
	// URL is postgres://user@host:port/database?name=value with the parameters of libpq, several hosts included. What it lacks comes
	// from the environment (PGHOST, PGPASSFILE, ...) as in psql. Away from this machine the certificate of the server is always
	// verified (sslmode=verify-full), and of several hosts the primary is used (target_session_attrs=read-write).
	URL string
	// URLFile is a file with the URL, in place of URL. It is read again for each new connection, for a password that was changed;
	// so are the files that the URL names.
	URLFile string
	// ListenURL and ListenURLFile lead to the same database for the one connection that listens for notifications, if URL leads through
	// PgBouncer in transaction mode, which passes none on. Empty: URL.
	ListenURL, ListenURLFile string
	// Insecure accepts a connection to another machine that is not encrypted, or to a server whose name is not verified.
	Insecure bool
	// Pepper is the fingerprint of the pepper that keys are hashed with (apikey.Hasher.Fingerprint). Open refuses a database that
	// was made with another one: none of its keys would be found.
	Pepper string
	// Installation is the id of the installation that this node served before: every other one is refused. Empty: any is served.
	Installation string
	// OnInstallation is called with the id of the installation when the first connection was made, before anything is read. An error
	// refuses the connection. Nil: nothing is called.
	OnInstallation func(id string) error
	// GrantTo is a role that Migrate gives the privileges of a server. Empty: none.
	GrantTo string
	// MayBeAway lets Open return a DB although no server can be reached. What it would have refused is refused later, as KindUnavailable.
	MayBeAway bool

	// MaxStaleness is how long keys may be served without a look at the feed of changes; 0 is 30 s.
	MaxStaleness time.Duration
	// CopyDir is the folder of the local copy, with which a node starts while no server can be reached. Empty: there is no copy.
	CopyDir string

	MaxConnections   int           // of this node; 0 is 10
	ConnectTimeout   time.Duration // 0 is 3 s
	StatementTimeout time.Duration // 0 is 5 s
	IdleTimeout      time.Duration // after which an idle connection is closed; 0 is 5 minutes

	// Now is the ledger's clock in tests; nil is the clock of the database.
	Now func() time.Time
	// Logger gets what an operator should know; nil discards.
	Logger *slog.Logger

	tracer    pgx.QueryTracer // for tests that count statements, or hold them up
	copySlack int64           // for tests that write copies anew
}

func (o Options) withDefaults() Options {
	o.MaxConnections = cmp.Or(o.MaxConnections, 10)
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, 3*time.Second)
	o.StatementTimeout = cmp.Or(o.StatementTimeout, 5*time.Second)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 5*time.Minute)
	o.MaxStaleness = cmp.Or(o.MaxStaleness, 30*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// DB is a pool of connections to the database of one installation. Use Open. All methods may be called concurrently.
type DB struct {
	o         Options
	pool      *pgxpool.Pool
	begin     pgx.TxOptions
	gate      *gate
	additions *grouper[addition]
	hearing   *hearing
	ledger    *Ledger
	startKeys sync.Once
	keys      atomic.Pointer[Keys] // nil until the first call of Keys

	mu           sync.Mutex
	installation string        // "" until the first connection
	closers      []func()      // of what Close closes before the pool
	readers      []*feedReader // of revocations
}

// Open makes the pool, and connects once to see whether the database can be served.
//
// The error is of KindInvalid if the options cannot be used, of KindConflict if the database must not be served as it is (its
// schema, its pepper, its installation), and of KindUnavailable if it cannot be reached.
func Open(ctx context.Context, o Options) (*DB, error) {
	o = o.withDefaults()
	cfg, err := poolConfig(o)
	if err != nil {
		return nil, err
	}
	timeout := o.StatementTimeout.Milliseconds()
	db := &DB{o: o, begin: pgx.TxOptions{
		// In one message: a session's own settings would not survive PgBouncer, and a node that stops in a transaction must not
		// hold its locks.
		BeginQuery: fmt.Sprintf("begin isolation level read committed; set local statement_timeout = %d; "+
			"set local idle_in_transaction_session_timeout = %d", timeout, timeout),
	}}
	cfg.AfterConnect = db.admit
	if _, err := parse(db.listenOptions()); err != nil {
		return nil, err
	}
	db.additions, db.hearing = &grouper[addition]{run: db.addAll}, newHearing()
	db.gate, db.ledger = newGate(db.probe, o.Logger), newLedger(db)
	if db.pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), cfg); err != nil {
		return nil, authz.Errorf(authz.KindInvalid, "PostgreSQL: %w", err)
	}
	if err := db.first(ctx); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// first connects for the first time.
func (db *DB) first(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, db.o.ConnectTimeout+db.o.StatementTimeout)
	defer cancel()
	conn, err := db.pool.Acquire(ctx)
	if err == nil {
		conn.Release()
		return nil
	}
	if err = refusal(err); authz.KindOf(err) == authz.KindUnavailable && db.o.MayBeAway {
		db.o.Logger.Warn("PostgreSQL cannot be reached", "error", err)
		return nil
	}
	return err
}

// Close closes all connections. It waits for those in use.
func (db *DB) Close() error {
	if s := db.keys.Load(); s != nil {
		s.close()
	}
	db.additions.close()
	db.hearing.close()
	db.mu.Lock()
	closers := db.closers
	db.closers = nil
	db.mu.Unlock()
	for _, f := range closers {
		f()
	}
	db.ledger.close()
	db.gate.close()
	db.pool.Close()
	return nil
}

// whenClosed has Close call f.
func (db *DB) whenClosed(f func()) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.closers = append(db.closers, f)
}

// Installation is the id of the installation, "" if no connection was made yet.
func (db *DB) Installation() string {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.installation
}

// knownInstallation is the id of the installation that this node serves or has served, "" if it does not know.
func (db *DB) knownInstallation() string { return cmp.Or(db.Installation(), db.o.Installation) }

func poolConfig(o Options) (*pgxpool.Config, error) {
	cfg, err := parse(o)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns, cfg.MaxConnIdleTime, cfg.MaxConnLifetimeJitter = int32(o.MaxConnections), o.IdleTimeout, cfg.MaxConnLifetime/10
	cfg.ConnConfig.ConnectTimeout = o.ConnectTimeout
	cfg.ConnConfig.Tracer = o.tracer
	// Behind PgBouncer a session may still listen for a client that had it before. pgx would keep what arrives.
	cfg.ConnConfig.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {}
	// A ping would cost a round trip on the way of a request. tx and read repeat what a dead connection loses.
	cfg.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	cfg.BeforeConnect = func(_ context.Context, conn *pgx.ConnConfig) error {
		again, err := parse(o)
		if err != nil {
			return err
		}
		conn.Password = again.ConnConfig.Password
		return nil
	}
	return cfg, nil
}

// parse reads the URL. No error quotes it: it may hold a password.
func parse(o Options) (*pgxpool.Config, error) {
	url := o.URL
	if o.URLFile != "" {
		text, err := os.ReadFile(o.URLFile)
		if err != nil {
			return nil, authz.Errorf(authz.KindInvalid, "the file with the URL of PostgreSQL: %w", err)
		}
		url = strings.TrimSpace(string(text))
	}
	if !strings.HasPrefix(url, "postgres://") && !strings.HasPrefix(url, "postgresql://") {
		return nil, authz.Errorf(authz.KindInvalid, "the URL of PostgreSQL does not begin with postgres://")
	}
	cfg, err := parseURL(url)
	if err != nil || local(cfg) || o.Insecure || verified(cfg) {
		return cfg, err
	}
	if strings.Contains(url, "sslmode=") || strings.Contains(url, "ssl=") {
		return nil, authz.Errorf(authz.KindInvalid,
			"the URL of PostgreSQL leads to another machine, and its sslmode does not verify who answers: use sslmode=verify-full (with sslrootcert=FILE), or allow this with insecure")
	}
	return parseURL(with(url, "sslmode=verify-full"))
}

func parseURL(url string) (*pgxpool.Config, error) {
	if !strings.Contains(url, "target_session_attrs=") && os.Getenv("PGTARGETSESSIONATTRS") == "" {
		url = with(url, "target_session_attrs=read-write")
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		if cause := errors.Unwrap(err); cause != nil && errors.Is(cause, os.ErrNotExist) {
			return nil, authz.Errorf(authz.KindInvalid, "the URL of PostgreSQL names a file that does not exist")
		}
		return nil, authz.Errorf(authz.KindInvalid, "the URL of PostgreSQL cannot be used: it is not postgres://user@host:port/database?name=value, "+
			"a character of its password is not percent-encoded, or a parameter has no such value")
	}
	return cfg, nil
}

// with adds a parameter to a URL.
func with(url, parameter string) string {
	if strings.Contains(url, "?") {
		return url + "&" + parameter
	}
	return url + "?" + parameter
}

// local reports whether all hosts are this machine.
func local(cfg *pgxpool.Config) bool {
	here := func(host string) bool {
		ip, err := netip.ParseAddr(host)
		return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" || err == nil && ip.IsLoopback()
	}
	for _, f := range cfg.ConnConfig.Fallbacks {
		if !here(f.Host) {
			return false
		}
	}
	return here(cfg.ConnConfig.Host)
}

// verified reports whether every connection is encrypted, to a server that proves its name.
func verified(cfg *pgxpool.Config) bool {
	for _, f := range cfg.ConnConfig.Fallbacks {
		if f.TLSConfig == nil || f.TLSConfig.InsecureSkipVerify {
			return false
		}
	}
	return cfg.ConnConfig.TLSConfig != nil && !cfg.ConnConfig.TLSConfig.InsecureSkipVerify
}
