package nodes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

const (
	askers  = 12
	current = 120 // accounts under load: the latest
	each    = 2   // keys of an account
	patient = 10 * time.Second
)

// clients send requests through the Envoys, and write through the admin APIs.
type clients struct {
	f     *fleet
	w     *world
	names atomic.Int64
	turn  atomic.Int64
	wg    sync.WaitGroup
}

// ask sends one request and records the answer. Each request goes to the next Envoy.
func (c *clients) ask(k *key) (status int) {
	status, _ = c.askAt(int(c.turn.Add(1)), k)
	return status
}

func (c *clients) askAt(envoy int, k *key) (status int, reason string) {
	// No context: a request that is sent is answered, so that its outcome is known.
	req, err := http.NewRequest(http.MethodGet, "http://"+c.f.envoys[envoy%len(c.f.envoys)].Addr()+"/", nil)
	if err != nil {
		c.w.fault("%v", err)
		return 0, ""
	}
	req.Header.Set("X-Api-Key", k.text)
	sent := time.Now()
	resp, err := c.f.http.Do(req)
	if err != nil {
		c.w.fault("Envoy does not answer: %v", err)
		return 0, ""
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	reason = resp.Header.Get("X-Authz-Reason")
	c.w.answered(k, sent, resp.StatusCode, reason)
	return resp.StatusCode, reason
}

// write makes a call to the admin API of a node and reports whether it was acknowledged. While servers are killed there may be no answer,
// or 503.
func (c *clients) write(n *node, path string, in, out any) bool {
	ctx, cancel := context.WithTimeout(c.f.t.Context(), patient)
	defer cancel()
	err := n.admin.Do(ctx, http.MethodPost, path, in, out)
	var refused *admin.Refused
	if errors.As(err, &refused) && refused.Status != http.StatusServiceUnavailable {
		c.w.fault("%s: %d %v", path, refused.Status, err)
	}
	return err == nil
}

func (c *clients) name(kind string) string { return fmt.Sprintf("%s-%d", kind, c.names.Add(1)) }

// makeAccount makes an account with keys.
func (c *clients) makeAccount(n *node, plan string) *account {
	a := &account{id: c.name("account"), plan: plan}
	if !c.write(n, "/v1/accounts", admin.AccountCreate{ID: a.id, Plan: plan}, nil) {
		return nil
	}
	var keys []admin.Key
	for range each {
		var k admin.Key
		if c.write(n, "/v1/keys", admin.KeyCreate{Account: a.id}, &k) {
			keys = append(keys, k)
		}
	}
	c.w.made(a, keys)
	return a
}

// revoke revokes a key, or all keys of its account, and asks with it until every Envoy has refused it several times.
func (c *clients) revoke(n *node, k *key, whole bool) {
	keys, path := []*key{k}, "/v1/keys/"+k.id+"/revoke"
	if whole {
		keys, path = k.account.keys, "/v1/accounts/"+k.account.id+"/revoke"
	}
	c.w.locked(func() {
		for _, k := range keys {
			k.revoking = true
		}
	})
	if !c.write(n, path, struct{}{}, nil) {
		return
	}
	c.w.locked(func() {
		now := time.Now()
		for _, k := range keys {
			if k.revoked.IsZero() {
				k.revoked = now
			}
		}
		if c.w.acked["revocations"]++; whole {
			c.w.acked["revocations of accounts"]++
		}
	})
	for denied := 0; denied < 2*nodeCount && c.f.t.Context().Err() == nil; denied++ {
		if c.ask(k) == http.StatusOK {
			denied = -1
		}
	}
}

// credit makes a new credit.
func (c *clients) credit(n *node, a *account, units int64) {
	made := &credit{id: c.name("credit"), units: units}
	c.w.locked(func() { a.credits = append(a.credits, made) })
	c.repeat(n, a, made)
}

// repeat sends a credit, for the first time or not.
func (c *clients) repeat(n *node, a *account, made *credit) bool {
	change := admin.QuotaChange{QuotaHolder: admin.QuotaHolder{Account: a.id}, Limit: "credits", Units: made.units, ID: made.id}
	acked := c.write(n, "/v1/quota/credit", change, nil)
	c.w.locked(func() {
		if acked && !made.acked {
			c.w.acked["credits"]++
			made.acked = true
		}
	})
	return acked
}

func hasCredits(a *account) bool { return a.plan == "prepaid" || a.plan == "all" }

// begin makes the first accounts, before anything is broken.
func (c *clients) begin() {
	var making sync.WaitGroup
	for i := range nodeCount {
		making.Go(func() {
			for j := range current / nodeCount {
				a := c.makeAccount(c.f.nodes[i], under[j%len(under)])
				if a == nil || len(a.keys) < each {
					c.w.fault("an account could not be made")
					return
				}
				if hasCredits(a) {
					c.credit(c.f.nodes[i], a, 20)
				}
			}
		})
	}
	making.Wait()
}

// again calls f again and again, after a pause of up to twice that, until ctx ends.
func (c *clients) again(ctx context.Context, seed uint64, pause time.Duration, f func(rng *rand.Rand, zipf *rand.Zipf, n *node)) {
	rng := rand.New(rand.NewPCG(seed, 1))
	zipf := rand.NewZipf(rng, 1.1, 1, current*each-1)
	c.wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(rand.N(2 * pause)):
				f(rng, zipf, c.f.nodes[rng.IntN(nodeCount)])
			}
		}
	})
}

// load starts clients of every kind, which end with ctx. Wait for wg then.
func (c *clients) load(ctx context.Context, seed uint64) {
	for i := range uint64(askers) {
		c.again(ctx, seed+i, 8*time.Millisecond, func(rng *rand.Rand, zipf *rand.Zipf, _ *node) { c.ask(c.w.pick(rng, zipf)) })
	}
	c.again(ctx, seed+100, 300*time.Millisecond, func(rng *rand.Rand, _ *rand.Zipf, n *node) {
		c.makeAccount(n, under[rng.IntN(len(under))])
	})
	c.again(ctx, seed+101, 600*time.Millisecond, func(rng *rand.Rand, zipf *rand.Zipf, n *node) {
		c.revoke(n, c.w.pick(rng, zipf), rng.IntN(4) == 0)
	})
	c.again(ctx, seed+102, 40*time.Millisecond, func(rng *rand.Rand, _ *rand.Zipf, n *node) {
		if a := c.w.pickAccount(rng, hasCredits); a != nil {
			c.credit(n, a, 1+rng.Int64N(40))
		}
	})
}
