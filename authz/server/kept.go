package server

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
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
)

// keptFile is the name of the last good policy in the data directory.
const keptFile = "policy.kept"

// kept is the last policy that was put in force, as it lies in the data directory. A process that is started anew on
// policies that cannot be used goes on with it, where the one before it would have gone on as well.
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

// saveKept keeps a policy that is in force. Those that ship with the binary come with it.
func saveKept(dir string, cfg config.Policy, held policy.Source, fingerprint string, now time.Time) error {
	if len(cfg.Paths) == 0 {
		return nil
	}
	files, err := held.Pack()
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
	return replaceFile(filepath.Join(dir, keptFile), raw)
}

// readKept returns what was kept of the policies at the configured paths, nil if there is nothing. Policies of other
// paths are others, and do not take their place.
func readKept(dir string, cfg config.Policy) (*kept, error) {
	raw, err := os.ReadFile(filepath.Join(dir, keptFile))
	if errors.Is(err, os.ErrNotExist) || len(cfg.Paths) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var k kept
	if err := json.Unmarshal(raw, &k); err != nil {
		return nil, fmt.Errorf("%s: %w", keptFile, err)
	}
	if sumOf(k.Files) != k.Sum {
		return nil, fmt.Errorf("%s is damaged", keptFile)
	}
	if !slices.Equal(k.Paths, cfg.Paths) {
		return nil, nil
	}
	return &k, nil
}

// PolicyKept is when the policies were kept that a server would go on with if the configured ones cannot be used, and zero
// if there are none.
func PolicyKept(dataDir string, cfg config.Policy) (time.Time, error) {
	k, err := readKept(dataDir, cfg)
	if k == nil {
		return time.Time{}, err
	}
	return k.SavedAt, nil
}

// source is the policy's files, and cfg how they were loaded; what else the configuration says holds for them too.
func (k *kept) source(cfg config.Policy) (policy.Source, config.Policy, error) {
	src, err := policy.Unpack(k.Files)
	cfg.Query, cfg.Profile, cfg.RegoVersion = k.Query, k.Profile, k.RegoVersion
	return src, cfg, err
}

// is reports whether the same files would be loaded in the same way.
func (k *kept) is(cfg config.Policy, fingerprint string) bool {
	return k.Fingerprint == fingerprint && k.Query == cfg.Query && k.Profile == cfg.Profile && k.RegoVersion == cfg.RegoVersion
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// replaceFile writes a file so that a crash leaves the old one or the new one, whole.
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

// begin puts the configured policies in force, or those that were kept where the configured ones cannot be used. Its error
// says that there are none.
func (b *rulebook) begin(ctx context.Context) (fingerprint string, err error) {
	src := source(b.cfg)
	next, err := b.load(ctx, src, b.cfg)
	last, lastErr := readKept(b.dataDir, b.cfg)
	if lastErr != nil {
		b.log.Error("the policy that was kept cannot be read", "error", lastErr)
	}
	if last == nil || err == nil && last.is(b.cfg, next.policy.Fingerprint()) {
		if err != nil {
			return "", err
		}
		b.accept(next)
		if last == nil {
			b.keep(next)
		}
		return next.policy.Fingerprint(), nil
	}
	src, cfg, oldErr := last.source(b.cfg)
	var old *ruling
	if oldErr == nil {
		old, oldErr = b.load(ctx, src, cfg)
	}
	if oldErr != nil {
		b.log.Error("the policy that was kept cannot be used", "error", oldErr)
	}
	if err == nil && old != nil {
		_, err = b.takesAway(ctx, old, next)
	}
	switch {
	case err == nil:
		b.accept(next)
		b.keep(next)
		return next.policy.Fingerprint(), nil
	case old == nil:
		return "", err
	}
	b.accept(old)
	b.keptAt.Store(&last.SavedAt)
	b.refuse(err)
	b.metrics.PolicyKept(true)
	b.log.Error("serving the last good policy, which was kept: the configured one cannot be used", "revision", old.policy.Revision(),
		"kept_at", last.SavedAt, "paths", b.cfg.Paths)
	return "", nil // so that the first look at the files reads them again
}

// keep keeps the policy in force for the next start.
func (b *rulebook) keep(next *ruling) {
	if err := saveKept(b.dataDir, b.cfg, next.held, next.policy.Fingerprint(), time.Now()); err != nil {
		b.log.Error("policy not kept: a start on a broken one would fail", "error", err)
	}
}
