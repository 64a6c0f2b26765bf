package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/bolt"
)

// revoke writes a number of revocations into the database of a stopped Tollkeeper, as a year of logouts leaves them. No
// command revokes so many tokens at once. They match none of the callers.
func revoke(ctx context.Context, database string, n int) (err error) {
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
	for range 512 { // concurrent additions share a commit
		g.Go(func() error {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if _, err := db.Revocations().Add(ctx, revocation.Record{
					Kind: revocation.KindJTI, Issuer: "https://issuer.example/realms/main", Value: fmt.Sprintf("1f2e3d4c-0000-4000-8000-%012d", i),
					At: at, Cause: "logout", ExpiresAt: at.Add(24 * time.Hour),
				}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}
