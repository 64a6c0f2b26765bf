package server

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// errShared says how a store is backed up that is not a file.
var errShared = authz.Errorf(authz.KindConflict,
	"keys, revocations and quotas are in PostgreSQL: back up the database, with pg_dump or for recovery to a point in time")

// BackupInfo is what a backup says about itself.
type BackupInfo = bolt.BackupInfo

// backup returns what writes a backup of the data file that this server has open.
func (s *Server) backup() (func(context.Context, io.Writer) error, error) {
	switch {
	case s.cfg.Store.Kind == config.StorePostgres:
		return nil, errShared
	case s.stores.file == nil:
		return nil, authz.Errorf(authz.KindConflict, "the server keeps everything in memory: there is no file to back up")
	}
	return s.stores.file.Backup, nil
}

// Backup writes a backup of the data file in a directory. The error is ErrRunning while a server has it open: that server makes the
// backup then.
func Backup(ctx context.Context, dataDir string, w io.Writer) (err error) {
	file, err := bolt.Inspect(filepath.Join(dataDir, databaseFile))
	switch {
	case errors.Is(err, bolt.ErrInUse):
		return ErrRunning
	case authz.KindOf(err) == authz.KindNotFound && usesPostgres(dataDir):
		return errShared
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return file.Backup(ctx, w, time.Now())
}

// usesPostgres reports whether the server on a data directory used PostgreSQL last.
func usesPostgres(dataDir string) bool {
	_, err := os.Stat(filepath.Join(dataDir, installationFile))
	return err == nil
}

// IsBackup reports whether a file begins as a backup does.
func IsBackup(r io.Reader) bool { return bolt.IsBackup(r) }

// VerifyBackup reads a backup to its end, and compares the checksum.
func VerifyBackup(r io.Reader) (BackupInfo, error) { return bolt.VerifyBackup(r) }

// Restore makes the data file of a backup, in a directory without one. The error is of KindConflict if there is one, if a server runs
// on the directory, or if the backup is damaged.
func Restore(ctx context.Context, backup, dataDir string) (BackupInfo, error) {
	if _, err := admin.Running(dataDir); err == nil {
		return BackupInfo{}, authz.Errorf(authz.KindConflict, "a server runs on %s: restore into another directory", dataDir)
	}
	return bolt.Restore(ctx, backup, filepath.Join(dataDir, databaseFile))
}
