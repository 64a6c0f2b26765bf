package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
)

// keysPerAccount is how many keys an account usually has.
const keysPerAccount = 100

// population is the keys of a data set, and what is known about them. First come those of the callers, then those that are
// revoked, then those without a scope.
type population struct {
	keys            keySet
	revoked, narrow int
	perAccount      int // keys
}

// newPopulation has the keys of callers alone.
func newPopulation(n int) *population {
	return &population{keys: newKeySet(n), perAccount: keysPerAccount}
}

// first is a smaller population, of the first callers.
func (p *population) first(n int) *population {
	return &population{keys: p.keys[:n*keyLen], perAccount: p.perAccount}
}

func (p *population) callers() int { return p.keys.len() - p.revoked - p.narrow }

// isRevoked reports whether the nth key is.
func (p *population) isRevoked(n int) bool { return n >= p.callers() && n < p.callers()+p.revoked }

// account is the account of the nth key.
func (p *population) account(n int) string { return fmt.Sprintf("account-%06d", n/p.perAccount) }

// scopes are those of the nth key.
func (p *population) scopes(n int) []string {
	if n >= p.callers()+p.revoked {
		return []string{}
	}
	return []string{ordersScope}
}

// digest is that of the nth key, in hexadecimal.
func (p *population) digest(n int) string {
	sum := sha256.Sum256(p.keys.text(n))
	return hex.EncodeToString(sum[:])
}

// write writes a file for `tollkeeper key import`, with digests, as for keys of another product.
func (p *population) write(w io.Writer) error {
	type key struct {
		SHA256  string   `json:"sha256"`
		Account string   `json:"account"`
		Plan    string   `json:"plan"`
		Scopes  []string `json:"scopes"`
	}
	b := bufio.NewWriterSize(w, 1<<20)
	lines := json.NewEncoder(b)
	for i := range p.keys.len() {
		if err := lines.Encode(key{p.digest(i), p.account(i), plan, p.scopes(i)}); err != nil {
			return err
		}
	}
	return b.Flush()
}

// writeData writes the population as OPA's data, with the keys of the tokens' issuer.
func (p *population) writeData(w io.Writer, t *tokenSet) error {
	type key struct {
		Account string   `json:"account"`
		Plan    string   `json:"plan"`
		Status  string   `json:"status"`
		Scopes  []string `json:"scopes"`
	}
	keys := make(map[string]key, p.keys.len())
	for i := range p.keys.len() {
		k := key{p.account(i), plan, "active", p.scopes(i)}
		if p.isRevoked(i) {
			k.Status = "revoked"
		}
		keys[p.digest(i)] = k
	}
	return json.NewEncoder(w).Encode(map[string]any{"keys": keys, "issuer": t.issuer, "jwks": string(t.jwks)})
}
