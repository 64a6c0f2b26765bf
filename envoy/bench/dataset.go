package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// dataset is the data and the settings of a Tollkeeper. Rivals that differ only in their load share one.
type dataset struct {
	name    string
	people  *population
	logouts int       // revocations of tokens that no caller has
	tokens  *tokenSet // nil: no issuer is trusted
	policy  string    // more settings of the policy
	rules   string    // the operator's own rules
	more    string    // more sections of the configuration
}

// plan is the keys' plan. Its limits are charged as usual, and never reached.
const plan = "bench"

const plansYAML = `tollkeeper:
  plans:
    ` + plan + `:
      limits:
        rate: {units: 1000000000, window: minute}
        daily: {units: 1000000000000, window: day, per: account}
`

// settings are more settings of Tollkeeper, none of which makes it faster.
const settings = `policy: {paths: [%q]%s}
log: {decisions: %q}
`

// tokenSettings trusts the issuer of a tokenSet.
const tokenSettings = `tokens:
  issuers:
  - {issuer: %q, audiences: [` + tokenAudience + `], jwks_file: %q, account_claim: ` + accountClaim + `, plan_claim: ` + planClaim + `}
`

// newTollkeeper makes a Tollkeeper with the data, and does not start it. Its files are in dir, or in folders that close
// removes.
func newTollkeeper(ctx context.Context, binary, dir string, d *dataset) (_ *tollkeeper, err error) {
	progress("importing %s keys and %s revocations", grouped(int64(d.people.keys.len())), grouped(int64(d.logouts+d.people.revoked)))
	policies := filepath.Join(dir, d.name+"-policies")
	if out, err := exec.CommandContext(ctx, binary, "policy", "init", policies).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("policy init: %w: %s", err, out)
	}
	files := map[string]string{"plans.yaml": plansYAML, "routes.yaml": routesYAML}
	if d.rules != "" {
		files["custom.rego"] = d.rules
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(policies, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	t := &tollkeeper{decisions: filepath.Join(dir, d.name+"-decisions.jsonl")}
	extra := fmt.Sprintf(settings, policies, d.policy, t.decisions) + d.more
	if d.tokens != nil {
		jwks := filepath.Join(dir, d.name+"-jwks.json")
		if err := os.WriteFile(jwks, d.tokens.jwks, 0o600); err != nil {
			return nil, err
		}
		extra += fmt.Sprintf(tokenSettings, d.tokens.issuer, jwks)
	}
	if t.Tollkeeper, err = harness.StartTollkeeper(ctx, harness.TollkeeperOptions{Binary: binary, Extra: extra}); err != nil {
		return nil, err
	}
	if err := errors.Join(d.importKeys(ctx, t, dir), t.stop(), d.revoke(ctx, filepath.Join(t.DataDir(), "tollkeeper.db"))); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (d *dataset) importKeys(ctx context.Context, t *tollkeeper, dir string) error {
	file := filepath.Join(dir, d.name+"-keys.jsonl")
	if err := writeFile(file, func(w io.Writer) error { return d.people.write(w) }); err != nil {
		return err
	}
	_, err := t.CLI(ctx, "key", "import", file)
	return errors.Join(err, os.Remove(file))
}

// revoke writes revocations into the database of a stopped Tollkeeper: of the keys that are revoked, and of tokens that no caller
// has, as a year of logouts leaves them. No command revokes so many at once.
func (d *dataset) revoke(ctx context.Context, database string) (err error) {
	n := d.logouts + d.people.revoked
	if n == 0 {
		return nil
	}
	db, err := bolt.Open(database, bolt.Options{Pepper: apikey.Hasher{}.Fingerprint()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	at := time.Now()
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(n, 512) { // concurrent additions share a commit
		g.Go(func() error {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				r := revocation.Record{
					Kind: revocation.KindJTI, Issuer: "https://issuer.example/realms/main", Value: fmt.Sprintf("1f2e3d4c-0000-4000-8000-%012d", i),
					At: at, Cause: "logout", ExpiresAt: at.Add(24 * time.Hour),
				}
				if i >= d.logouts {
					key, err := db.Keys().Find(ctx, apikey.Hasher{}.Text(string(d.people.keys.text(d.people.callers()+i-d.logouts))))
					if err != nil {
						return err
					}
					r = revocation.Record{Kind: revocation.KindKey, Value: key.ID, At: at, Cause: "leaked"}
				}
				if _, err := db.Revocations().Add(ctx, r); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}
