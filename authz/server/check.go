package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/rulebook"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// CheckResult is what Check found.
type CheckResult struct {
	Faults []StartFault
	Policy *policy.Policy // nil: it cannot be used
}

// Check returns everything that would keep New from starting with a configuration on this machine. It changes nothing. It
// opens the ports for a moment, unless a server runs on the data directory.
func Check(ctx context.Context, cfg config.Config) CheckResult {
	log := slog.New(slog.DiscardHandler)
	p, fs := prepare(&cfg, log)
	loaded, err := rulebook.Load(ctx, cfg.Policy, log)
	fs.add("policy", err)
	fs.add("data_dir", checkDataDir(cfg.DataDir))
	running := false
	if cfg.Store.Kind == config.StoreBolt && HasLedger(cfg.DataDir) {
		running, err = checkPepper(cfg.DataDir, p.hasher)
		fs.add("data_dir", err)
	}
	if cfg.Store.Kind == config.StorePostgres && len(fs) == 0 {
		fs.add("store", checkPostgres(ctx, &cfg, p.hasher.Fingerprint()))
	}
	fs.add("log.decisions", checkDecisionLog(cfg.Log.Decisions))
	if _, err := admin.Running(cfg.DataDir); err != nil && !running {
		fs = append(fs, checkPorts(&cfg.Listen)...)
	}
	return CheckResult{Faults: fs, Policy: loaded}
}

// CheckFields returns what is wrong with a configuration for another machine, without the files that it names.
func CheckFields(cfg *config.Config) []StartFault {
	return append(issuerFaults(&cfg.Tokens), clientFaults(cfg)...)
}

// checkDataDir returns an error if a data directory, or the admin token in it, cannot be used, or if it is missing and
// cannot be made.
func checkDataDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := checkCanMake(dir); err != nil {
			return fmt.Errorf("it is not there, and cannot be made: %w", err)
		}
		return nil
	case err != nil:
		return err
	case !info.IsDir():
		return errors.New(dir + " is not a folder")
	}
	if err := writable(dir); err != nil {
		return err
	}
	if _, err := admin.ReadToken(filepath.Join(dir, admin.TokenFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("admin token: %w", err)
	}
	return nil
}

// checkCanMake looks at the nearest folder above dir that exists.
func checkCanMake(dir string) error {
	above := filepath.Clean(dir)
	info, err := os.Stat(above)
	for errors.Is(err, os.ErrNotExist) && above != filepath.Dir(above) {
		above = filepath.Dir(above)
		info, err = os.Stat(above)
	}
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return errors.New(above + " is not a folder")
	}
	return writable(above)
}

// checkPepper returns an error if a data file was made with another pepper. If a server has the file open, it reports that:
// the pepper is right then. Damage is reported by CheckLedger.
func checkPepper(dir string, hasher apikey.Hasher) (running bool, err error) {
	file, err := bolt.Inspect(filepath.Join(dir, databaseFile))
	if err != nil {
		return errors.Is(err, bolt.ErrInUse), nil
	}
	defer func() { _ = file.Close() }()
	return false, file.CheckPepper(hasher.Fingerprint())
}

// checkDecisionLog returns an error if decisions cannot be written to a target of log.decisions.
func checkDecisionLog(target string) error {
	if target == "off" || target == "stdout" || target == "stderr" {
		return nil
	}
	info, err := os.Stat(target)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return writable(filepath.Dir(target))
	case err != nil:
		return err
	case info.IsDir():
		return errors.New(target + " is a folder")
	}
	return writable(target)
}

// checkPorts opens all ports and closes them again at the end, so that it finds two fields with the same port, too.
func checkPorts(cfg *config.Listen) (fs faults) {
	for _, a := range cfg.Addresses() {
		field := "listen." + a.Name
		if path, ok := strings.CutPrefix(a.Value, config.UnixPrefix); ok {
			fs.add(field, checkSocket(path))
		} else if a.Value != "" {
			l, err := listenTCP(a.Value)
			fs.add(field, err)
			if err == nil {
				defer func() { _ = l.Close() }()
			}
		}
	}
	return fs
}

func checkSocket(path string) error {
	if err := checkVacant(path); err != nil {
		return err
	}
	return writable(filepath.Dir(path))
}
