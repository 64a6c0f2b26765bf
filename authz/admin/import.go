package admin

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// importKeys adds a batch, all or none. An expired key is a fault unless force is set.
func (s *Service) importKeys(ctx context.Context, in []ImportKey, force bool) (ImportResult, error) {
	var out ImportResult
	now := s.Now().UTC()
	keys := make([]apikey.Key, len(in))
	for i, k := range in {
		var err error
		if keys[i], err = s.importedKey(ctx, k, now); err == nil {
			if err = s.checkEnd(k.ExpiresAt, force); err != nil {
				if _, findErr := s.Keys.Find(ctx, keys[i].Digest); findErr == nil {
					err = nil // it was imported before, and has expired since
				}
			}
		}
		if err != nil {
			out.Faults = append(out.Faults, ImportFault{Index: i, Text: err.Error()})
		}
	}
	if len(out.Faults) > 0 {
		return out, nil
	}
	done, err := s.Keys.Import(ctx, keys)
	var refused *apikey.ImportError
	if errors.As(err, &refused) {
		for _, f := range refused.Faults {
			out.Faults = append(out.Faults, ImportFault{Index: f.Index, Text: f.Text})
		}
		return out, nil
	}
	return ImportResult{Created: done.Created, Unchanged: done.Unchanged, Accounts: done.Accounts}, err
}

// importedKey makes a key of one entry of the batch.
func (s *Service) importedKey(ctx context.Context, in ImportKey, now time.Time) (apikey.Key, error) {
	d, err := s.digest(in.SHA256)
	if err != nil {
		return apikey.Key{}, err
	}
	if err := apikey.CheckAccountID(in.Account); err != nil {
		return apikey.Key{}, err
	}
	k := apikey.Key{
		ID: apikey.NewID("key"), Name: in.Name, Account: in.Account, Plan: in.Plan,
		Environment: cmp.Or(in.Environment, defaultEnvironment), Scopes: in.Scopes, NotBefore: in.NotBefore,
		ExpiresAt: in.ExpiresAt, Meta: in.Meta, CreatedAt: now, UpdatedAt: now, Version: 1, Digest: d,
	}
	k.Lineage = k.ID
	accountPlan := ""
	if a, err := s.Keys.Account(ctx, in.Account); err == nil {
		accountPlan = a.Plan
	}
	if err := apikey.CheckMeta(k.Meta); err != nil {
		return apikey.Key{}, err
	}
	return k, s.checkKey(&k, accountPlan)
}
