package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres"
)

// installationFile is the name of the file in the data directory with the id of the installation that this node served last. An
// empty database in its place would grant every quota again and know no revocation, so it is refused until an operator adopts it.
const installationFile = "installation"

// readInstallation returns "" if there is no such file.
func readInstallation(dir string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, installationFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if raw = bytes.TrimSpace(raw); err == nil && len(raw) == 0 {
		err = errors.New(filepath.Join(dir, installationFile) + " is empty: run tollkeeper store adopt")
	}
	return string(raw), err
}

// keepInstallation writes the file so that a crash leaves the old one or the new one.
func keepInstallation(dir, id string) error {
	path := filepath.Join(dir, installationFile)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	_, err = f.WriteString(id + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	return nil
}

// postgresOptions are those of the configured database and of no installation.
func postgresOptions(cfg *config.Config, log *slog.Logger) postgres.Options {
	p := &cfg.Store.Postgres
	o := postgres.Options{
		URL: p.URL.Text(), URLFile: p.URLFile, ListenURL: p.ListenURL.Text(), ListenURLFile: p.ListenURLFile,
		Insecure: p.Insecure, MaxConnections: p.MaxConnections, ConnectTimeout: p.ConnectTimeout.Duration,
		StatementTimeout: p.StatementTimeout.Duration, IdleTimeout: p.IdleTimeout.Duration, Logger: log,
	}
	if o.URL == "" && o.URLFile == "" {
		o.URL = "postgres://" // everything comes from the environment
	}
	return o
}

// servingOptions are those with which a server opens the database: with pepper and installation.
func servingOptions(cfg *config.Config, pepper string, log *slog.Logger) (postgres.Options, error) {
	o := postgresOptions(cfg, log)
	o.Pepper, o.Installation = pepper, cfg.Store.Postgres.Installation
	kept, err := readInstallation(cfg.DataDir)
	switch {
	case err != nil:
		return o, err
	case kept == "":
		o.OnInstallation = func(id string) error { return keepInstallation(cfg.DataDir, id) }
	case o.Installation == "":
		o.Installation = kept
	case o.Installation != kept:
		return o, fmt.Errorf("store.postgres.installation is %s, and this node served %s: run tollkeeper store adopt", o.Installation, kept)
	}
	return o, nil
}

// checkPostgres returns the error with which openStores would fail.
func checkPostgres(ctx context.Context, cfg *config.Config, pepper string) error {
	o, err := servingOptions(cfg, pepper, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	_, err = postgres.Check(ctx, o)
	return err
}

// errNotShared is returned for stores that are not PostgreSQL.
func errNotShared(kind string) error {
	return authz.Errorf(authz.KindInvalid, "the store is %s, which needs none of this: set store.postgres, or give the configuration with --config", kind)
}

// Migration is what MigrateStore did.
type Migration struct {
	Before       int    `json:"before"` // version of the schema, 0 for none
	After        int    `json:"after"`
	Installation string `json:"installation"` // its id, for store.postgres.installation
}

// MigrateStore brings the schema of the configured database up to date, and gives a role, unless it is "", the privileges of a server.
func MigrateStore(ctx context.Context, cfg config.Config, grantTo string) (m Migration, err error) {
	if cfg.Store.Kind != config.StorePostgres {
		return m, errNotShared(cfg.Store.Kind)
	}
	o := postgresOptions(&cfg, slog.New(slog.DiscardHandler))
	o.GrantTo = grantTo
	if m.Before, m.After, err = postgres.Migrate(ctx, o); err != nil {
		return m, err
	}
	m.Installation, err = postgres.Installation(ctx, o)
	return m, err
}

// MigrationSQL is what MigrateStore does to a database whose schema has that version (0: it has none), for psql.
func MigrationSQL(before int, grantTo string) (string, error) { return postgres.SQL(before, grantTo) }

// StoreStatus is the state of the configured database, as seen from this node.
type StoreStatus struct {
	postgres.Status
	Served string `json:"served,omitempty"` // the installation that this node served last
}

// StoreTables are the tables in StoreStatus.Rows, in the order in which they are shown.
func StoreTables() []string { return postgres.Tables }

// ReadStoreStatus looks at the configured database and changes nothing.
func ReadStoreStatus(ctx context.Context, cfg config.Config) (s StoreStatus, err error) {
	if cfg.Store.Kind != config.StorePostgres {
		return s, errNotShared(cfg.Store.Kind)
	}
	if s.Served, err = readInstallation(cfg.DataDir); err != nil {
		return s, err
	}
	s.Status, err = postgres.ReadStatus(ctx, postgresOptions(&cfg, slog.New(slog.DiscardHandler)))
	return s, err
}

// AdoptStore makes the installation in the configured database the one that this node serves from its next start on, and returns it
// and the one that it served before. It refuses a database that could not be served.
func AdoptStore(ctx context.Context, cfg config.Config) (now, before string, err error) {
	if cfg.Store.Kind != config.StorePostgres {
		return "", "", errNotShared(cfg.Store.Kind)
	}
	hasher, err := readPepper(cfg.Keys.PepperFile)
	if err != nil {
		return "", "", fmt.Errorf("keys.pepper_file: %w", err)
	}
	o := postgresOptions(&cfg, slog.New(slog.DiscardHandler))
	o.Pepper = hasher.Fingerprint()
	if now, err = postgres.Check(ctx, o); err != nil {
		return "", "", err
	}
	if only := cfg.Store.Postgres.Installation; only != "" && only != now {
		return "", "", fmt.Errorf("this is installation %s, and store.postgres.installation is %s: change that first", now, only)
	}
	if before, err = readInstallation(cfg.DataDir); err != nil {
		before = "" // an empty file is replaced
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return "", "", fmt.Errorf("data_dir: %w", err)
	}
	return now, before, keepInstallation(cfg.DataDir, now)
}
