package main

import (
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
)

// tokenSet is access tokens of one issuer, all of the same length. They live for an hour.
type tokenSet struct {
	issuer string
	jwks   []byte // the issuer's keys
	all    [][]byte
}

// tokenAudience and the claims are those that the authorizers want.
const (
	tokenAudience = "api"
	accountClaim  = "org"
	planClaim     = "plan"
)

// mintTokens signs a token for each of so many users of the population's accounts.
func mintTokens(people *population, n int) (*tokenSet, error) {
	issuer := tokentest.New()
	defer issuer.Close() // its keys are given to the authorizers as a file
	t := &tokenSet{issuer: issuer.URL, jwks: issuer.Keys(), all: make([][]byte, n)}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	const share = 256
	for from := 0; from < n; from += share {
		g.Go(func() error {
			for i := from; i < min(n, from+share); i++ {
				t.all[i] = []byte(issuer.Token(map[string]any{
					"sub": fmt.Sprintf("user-%08d", i), "scope": ordersScope, "aud": tokenAudience,
					accountClaim: people.account(i * (people.callers() / n)), planClaim: plan,
				}))
				if len(t.all[i]) != len(t.all[from]) {
					return fmt.Errorf("token %d has %d characters, token %d has %d", i, len(t.all[i]), from, len(t.all[from]))
				}
			}
			return nil
		})
	}
	return t, g.Wait()
}

func (t *tokenSet) len() int          { return len(t.all) }
func (t *tokenSet) text(i int) []byte { return t.all[i] }
