package server

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/postgres"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/transfer"
)

// StorePlace says where a store is that can be copied: a data directory, or a database of PostgreSQL.
type StorePlace struct {
	DataDir      string // "" for a database
	URL, URLFile string // as in the configuration
	Insecure     bool
}

// CopyReport is a sign of life of CopyStore.
type CopyReport = transfer.Report

// CopyResult says what CopyStore copied.
type CopyResult struct {
	Sections []CopiedSection `json:"sections"`
	Resumed  bool            `json:"resumed"` // an earlier run copied some of it
}

// CopiedSection is one kind of entry. The hash is the same for every store that has the same entries.
type CopiedSection struct {
	Name    string `json:"name"`
	Entries int64  `json:"entries"`
	Hash    string `json:"hash"`
}

// reportEvery is the time between two reports of a copy.
const reportEvery = 5 * time.Second

// CopyStore copies everything that a store keeps into an empty one, and verifies it. If it is interrupted, the next call goes on.
//
// The error is of KindConflict if a server uses one of the two, or the target is neither empty nor an unfinished copy of the source.
func CopyStore(ctx context.Context, from, to StorePlace, report func(CopyReport)) (result CopyResult, err error) {
	source, closeSource, err := from.source(ctx)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, closeSource()) }()
	target, closeTarget, err := to.target(ctx)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, closeTarget()) }()
	copied, err := transfer.Copy(ctx, source, target, transfer.Options{Report: report, Every: reportEvery})
	if err != nil {
		return result, err
	}
	result.Resumed = copied.Resumed
	for _, s := range transfer.Sections() {
		result.Sections = append(result.Sections, CopiedSection{string(s), copied.Sums[s].Count, copied.Sums[s].Hash()})
	}
	return result, nil
}

func (p *StorePlace) options() postgres.Options {
	return postgres.Options{URL: p.URL, URLFile: p.URLFile, Insecure: p.Insecure}
}

func (p *StorePlace) source(ctx context.Context) (transfer.Source, func() error, error) {
	if p.DataDir == "" {
		s, err := postgres.OpenSource(ctx, p.options())
		if err != nil {
			return nil, nil, err
		}
		return s, s.Close, nil
	}
	file, err := bolt.Inspect(filepath.Join(p.DataDir, databaseFile))
	if err != nil {
		return nil, nil, inUse(p.DataDir, err)
	}
	s, err := file.Source(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return s, file.Close, nil
}

func (p *StorePlace) target(ctx context.Context) (transfer.Target, func() error, error) {
	if p.DataDir == "" {
		t, err := postgres.OpenFilling(ctx, p.options())
		if err != nil {
			return nil, nil, err
		}
		return t, t.Close, nil
	}
	t, err := bolt.Fill(filepath.Join(p.DataDir, databaseFile))
	if err != nil {
		return nil, nil, inUse(p.DataDir, err)
	}
	return t, t.Close, nil
}

// inUse says what to do if another process uses the data file.
func inUse(dir string, err error) error {
	if errors.Is(err, bolt.ErrInUse) {
		return authz.Errorf(authz.KindConflict, "a server or another command uses the data file in %s: stop it first", dir)
	}
	return err
}
