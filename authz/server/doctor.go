package server

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// ErrRunning says that a server runs on the data directory. Ask that server instead.
var ErrRunning = errors.New("a server runs on the data directory")

// HasLedger reports whether there is a data file in that directory.
func HasLedger(dataDir string) bool {
	_, err := os.Stat(filepath.Join(dataDir, databaseFile))
	return err == nil
}

// CheckLedger checks the data file in a directory without changing it. Damage that keeps the file from being opened is in
// the report, too. The error says why the file could not be read; it is ErrRunning while a server has it open.
func CheckLedger(ctx context.Context, dataDir string) (doctor.Report, error) {
	file, err := bolt.Inspect(filepath.Join(dataDir, databaseFile))
	switch {
	case err == nil:
		defer func() { _ = file.Close() }()
		return doctor.Run(ctx, file.Checks()), nil
	case errors.Is(err, bolt.ErrInUse):
		return doctor.Report{}, ErrRunning
	case authz.KindOf(err) == authz.KindConflict:
		return doctor.Run(ctx, bolt.ChecksOfUnreadable(err)), nil
	default:
		return doctor.Report{}, err
	}
}

// checkLedger checks the data file that this server has open, and reports doubts about its clock.
func (s *Server) checkLedger(ctx context.Context) (doctor.Report, error) {
	if s.cfg.Store.Kind == config.StorePostgres {
		return doctor.Report{}, authz.Errorf(authz.KindConflict, "the server keeps everything in PostgreSQL: there is no file to check")
	}
	if s.stores.file == nil {
		return doctor.Report{}, authz.Errorf(authz.KindConflict, "the server keeps everything in memory: there is no file to check")
	}
	checks := s.stores.file.Checks()
	for _, why := range []string{s.clock.Doubt(), s.pruner.Doubt()} {
		if why != "" {
			checks = append(checks, doctor.Clock(why))
		}
	}
	return doctor.Run(ctx, checks), nil
}
