package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres"
)

// databaseFile is the name of the bolt file in the data directory.
const databaseFile = "tollkeeper.db"

// stores are the stores of one backend.
type stores struct {
	keys        apikey.Store
	revocations revocation.Store
	marks       revocation.Marks // of the same store
	ledger      quota.Ledger
	closer      io.Closer
	file        *bolt.DB // nil: the backend has no file
}

// logBytes returns the size of the write-ahead log, nil if there is none.
func (s *stores) logBytes() func() int64 {
	if s.file == nil {
		return nil
	}
	return s.file.LogSize
}

func openStores(ctx context.Context, cfg config.Config, hasher apikey.Hasher, now func() time.Time, log *slog.Logger) (stores, error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return stores{}, fmt.Errorf("data_dir: %w", err)
	}
	if cfg.Store.Kind == config.StoreMemory {
		revocations := memory.NewRevocations()
		return stores{memory.NewKeys(), revocations, revocations, memory.NewLedger(now), closer(func() {}), nil}, nil
	}
	if cfg.Store.Kind == config.StorePostgres {
		return openPostgres(ctx, &cfg, hasher, log)
	}
	db, err := bolt.Open(filepath.Join(cfg.DataDir, databaseFile), bolt.Options{Pepper: hasher.Fingerprint(), Now: now, Logger: log})
	if err != nil {
		return stores{}, fmt.Errorf("data_dir: %w", err)
	}
	return stores{db.Keys(), db.Revocations(), db.Revocations(), db.Ledger(), db, db}, nil
}

// openPostgres opens the database that nodes share. Its clock is the ledger's.
func openPostgres(ctx context.Context, cfg *config.Config, hasher apikey.Hasher, log *slog.Logger) (stores, error) {
	o, err := servingOptions(cfg, hasher.Fingerprint(), log)
	if err != nil {
		return stores{}, err
	}
	o.CopyDir, o.MaxStaleness, o.MayBeAway = cfg.DataDir, cfg.Revocation.MaxStaleness.Duration, true
	db, err := postgres.Open(ctx, o)
	if err != nil {
		return stores{}, &StartFault{"store", err}
	}
	return stores{db.Keys(), db.Revocations(), db.Revocations(), db.Ledger(), db, nil}, nil
}
