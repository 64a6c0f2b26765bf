package server

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
)

// databaseFile is the name of bolt's file in the data directory.
const databaseFile = "tollkeeper.db"

// minPepper is the shortest pepper that is worth having, in bytes.
const minPepper = 16

// stores are the three stores and what closes them.
type stores struct {
	keys        apikey.Store
	revocations revocation.Store
	marks       revocation.Marks // of the same store
	ledger      quota.Ledger
	closer      io.Closer
	file        *bolt.DB // nil where there is none
}

func openStores(cfg config.Config, hasher apikey.Hasher, now func() time.Time, log *slog.Logger) (stores, error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return stores{}, fmt.Errorf("data_dir: %w", err)
	}
	if cfg.Store == "memory" {
		revocations := memory.NewRevocations()
		return stores{memory.NewKeys(), revocations, revocations, memory.NewLedger(now), nothing{}, nil}, nil
	}
	db, err := bolt.Open(filepath.Join(cfg.DataDir, databaseFile), bolt.Options{Pepper: hasher.Fingerprint(), Now: now, Logger: log})
	if err != nil {
		return stores{}, fmt.Errorf("data_dir: %w", err)
	}
	return stores{db.Keys(), db.Revocations(), db.Revocations(), db.Ledger(), db, db}, nil
}

type nothing struct{}

func (nothing) Close() error { return nil }

// readPepper reads the pepper, "" for none. One that cannot be used as it is meant to stops the start.
func readPepper(path string) (apikey.Hasher, error) {
	if path == "" {
		return apikey.Hasher{}, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return apikey.Hasher{}, err
	}
	if raw = bytes.TrimRight(raw, "\r\n"); len(raw) < minPepper {
		return apikey.Hasher{}, fmt.Errorf("%s holds %d bytes: want %d or more", path, len(raw), minPepper)
	}
	return apikey.NewHasher(raw), nil
}

// hintFile is the name, in the data directory, of the secret under which unknown keys are hashed for the decision log.
const hintFile = "hint.key"

// readHintKey reads that secret, and makes it if there is none. Without it the hints of before mean nothing, and nothing
// else depends on it.
func readHintKey(dir string) ([]byte, error) {
	path := filepath.Join(dir, hintFile)
	if raw, err := os.ReadFile(path); err == nil && len(raw) >= minPepper {
		return raw, nil
	}
	key := []byte(rand.Text())
	if err := os.WriteFile(path+".new", key, 0o600); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	return key, nil
}

// announce leaves word of where the server listens: in the data directory, and for the user who started it, so that the
// CLI finds it without being told.
func announce(dir, address string) (*admin.Announcement, error) {
	word, err := admin.Announce(dir, address)
	if err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	pointer, err := admin.PointerFile()
	if err != nil {
		return word, nil // a user without a home, as in a container: the data directory has to be named
	}
	if os.MkdirAll(filepath.Dir(pointer), 0o700) == nil {
		_ = os.WriteFile(pointer, []byte(absolute(dir)+"\n"), 0o600) // a convenience: nothing depends on it
	}
	return word, nil
}

// absolute is a path that means the same wherever it is read.
func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}
