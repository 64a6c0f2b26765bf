package rulebook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
)

// KeptFile is the name of the file in the data directory that holds the last good policy.
const KeptFile = "policy.kept"

// kept is the content of KeptFile: the last policy that was put in force. A running server keeps its policy when the files
// break. With this file a server that is restarted on broken files does the same.
type kept struct {
	SavedAt     time.Time       `json:"saved_at"`
	Paths       []string        `json:"paths"`
	Query       string          `json:"query"`
	Profile     string          `json:"profile"`
	RegoVersion string          `json:"rego_version"`
	Fingerprint string          `json:"fingerprint"`
	Sum         string          `json:"sha256"` // of Files
	Files       json.RawMessage `json:"files"`
}

// saveKept writes KeptFile. It does nothing for the shipped policies, which are part of the binary.
func saveKept(dir string, cfg config.Policy, src bundle.Source, fingerprint string, now time.Time) error {
	if len(cfg.Paths) == 0 {
		return nil
	}
	files, err := src.Pack()
	if err != nil {
		return err
	}
	raw, err := json.Marshal(kept{
		SavedAt: now.UTC(), Paths: cfg.Paths, Query: cfg.Query, Profile: cfg.Profile, RegoVersion: cfg.RegoVersion,
		Fingerprint: fingerprint, Sum: sumOf(files), Files: files,
	})
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, KeptFile), raw)
}

// readKept reads KeptFile. It returns nil if there is none, or if it holds policies of other paths than the configured ones.
func readKept(dir string, cfg config.Policy) (*kept, error) {
	raw, err := os.ReadFile(filepath.Join(dir, KeptFile))
	if errors.Is(err, os.ErrNotExist) || len(cfg.Paths) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var k kept
	if err := json.Unmarshal(raw, &k); err != nil {
		return nil, fmt.Errorf("%s: %w", KeptFile, err)
	}
	if sumOf(k.Files) != k.Sum {
		return nil, fmt.Errorf("%s is damaged", KeptFile)
	}
	if !slices.Equal(k.Paths, cfg.Paths) {
		return nil, nil
	}
	return &k, nil
}

// LastKept returns when the policies were saved that a server would use if the configured ones could not be loaded, and zero
// if none were.
func LastKept(dataDir string, cfg config.Policy) (time.Time, error) {
	k, err := readKept(dataDir, cfg)
	if k == nil {
		return time.Time{}, err
	}
	return k.SavedAt, nil
}

// source returns the saved files, and cfg with the settings under which they were loaded.
func (k *kept) source(cfg config.Policy) (bundle.Source, config.Policy, error) {
	src, err := bundle.Unpack(k.Files)
	cfg.Query, cfg.Profile, cfg.RegoVersion = k.Query, k.Profile, k.RegoVersion
	return src, cfg, err
}

// matches reports whether the same files were loaded under the same settings.
func (k *kept) matches(cfg config.Policy, fingerprint string) bool {
	return k.Fingerprint == fingerprint && k.Query == cfg.Query && k.Profile == cfg.Profile && k.RegoVersion == cfg.RegoVersion
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// replaceFile writes a file. After a crash at any point the path holds the whole old content or the whole new one.
func replaceFile(path string, content []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// begin puts the configured policies in force or, where they cannot be used, the kept ones. It returns the fingerprint of the
// files on disk if those are in force, and "" if not, so that the watcher loads them at its first look.
func (b *Book) begin(ctx context.Context) (fingerprint string, err error) {
	next, err := b.load(ctx, source(b.o.Policy), b.o.Policy)
	last, lastErr := readKept(b.o.DataDir, b.o.Policy)
	if lastErr != nil {
		b.o.Log.Error("the kept policy cannot be read", "error", lastErr)
	}
	switch {
	case last == nil && err != nil:
		return "", err
	case last == nil:
		b.accept(next)
		b.keep(next)
		return next.policy.Fingerprint(), nil
	case err == nil && last.matches(b.o.Policy, next.policy.Fingerprint()):
		b.accept(next)
		return next.policy.Fingerprint(), nil
	}
	old, oldErr := b.loadKept(ctx, last)
	if oldErr != nil {
		b.o.Log.Error("the kept policy cannot be used", "error", oldErr)
	}
	if err == nil && old != nil {
		_, err = b.checkRemovals(ctx, old, next)
	}
	switch {
	case err == nil:
		b.accept(next)
		b.keep(next)
		return next.policy.Fingerprint(), nil
	case old == nil:
		return "", err
	}
	b.acceptKept(old, last.SavedAt, err)
	return "", nil
}

func (b *Book) loadKept(ctx context.Context, k *kept) (*version, error) {
	src, cfg, err := k.source(b.o.Policy)
	if err != nil {
		return nil, err
	}
	return b.load(ctx, src, cfg)
}

// acceptKept puts the kept version in force. The error says why the configured one cannot be used.
func (b *Book) acceptKept(old *version, savedAt time.Time, err error) {
	b.accept(old)
	b.keptAt.Store(&savedAt)
	b.refuse(err)
	b.o.Metrics.PolicyKept(true)
	b.o.Log.Error("serving the last good policy, which was kept: the configured one cannot be used", "revision", old.policy.Revision(),
		"kept_at", savedAt, "paths", b.o.Policy.Paths)
}

// keep saves the version in force for the next start.
func (b *Book) keep(next *version) {
	if err := saveKept(b.o.DataDir, b.o.Policy, next.files, next.policy.Fingerprint(), time.Now()); err != nil {
		b.o.Log.Error("policy not saved: if its files break, the next start fails", "error", err)
	}
}
