package crashtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// clients speak to one run of the server.
type clients struct {
	w      *world
	conn   *grpc.ClientConn
	checks authv3.AuthorizationClient
	admin  *admin.Client
	ending atomic.Bool // the server was told to stop
	run    string      // makes names unique

	names atomic.Int64
	wg    sync.WaitGroup
}

func connect(w *world, tk *harness.Tollkeeper, run string) (*clients, error) {
	token, err := tk.Token()
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///127.0.0.1:%d", tk.Port()), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &clients{w: w, conn: conn, checks: authv3.NewAuthorizationClient(conn), admin: admin.NewClient(tk.AdminURL(), token), run: run}, nil
}

func (c *clients) close() {
	_ = c.conn.Close()
	http.DefaultClient.CloseIdleConnections() // a server that stops waits for a connection that was never used
}

func (c *clients) name(kind string) string {
	return fmt.Sprintf("%s-%s-%d", kind, c.run, c.names.Add(1))
}

// check sends one check and records the answer. It returns false if there was none.
func (c *clients) check(ctx context.Context, k *key, wasRevoked bool) bool {
	_, answered := c.ask(ctx, k, wasRevoked)
	return answered
}

// ask is check, and returns whether the request was allowed.
func (c *clients) ask(ctx context.Context, k *key, wasRevoked bool) (allowed, answered bool) {
	asked := call{k: k, run: c.run, sent: time.Now(), wasRevoked: wasRevoked}
	resp, err := c.checks.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/", Headers: map[string]string{"x-api-key": k.text},
		}},
	}})
	if err != nil {
		return false, false
	}
	asked.done, asked.ending = time.Now(), c.ending.Load()
	reason := reasonOf(resp)
	c.w.answered(asked, reason)
	return reason == "", true
}

// reasonOf is the reason of a denial, "" for an allow.
func reasonOf(resp *authv3.CheckResponse) string {
	if resp.GetStatus().GetCode() == 0 && resp.GetDeniedResponse() == nil {
		return ""
	}
	for _, h := range resp.GetDeniedResponse().GetHeaders() {
		if h.GetHeader().GetKey() == "x-authz-reason" {
			return h.GetHeader().GetValue()
		}
	}
	return "no reason"
}

// write makes a call to the admin API and reports whether it was acknowledged. A refusal is a fault, unless the server was
// told to stop. No answer is no fault: the server was killed.
func (c *clients) write(ctx context.Context, path string, in, out any) bool {
	err := c.admin.Do(ctx, http.MethodPost, path, in, out)
	var refused *admin.Refused
	if errors.As(err, &refused) && !(c.ending.Load() && refused.Status == http.StatusServiceUnavailable) {
		c.w.fault("%s: %v", path, err)
	}
	return err == nil
}

func (c *clients) makeAccount(ctx context.Context, plan string) *account {
	id := c.name("account")
	if !c.write(ctx, "/v1/accounts", admin.AccountCreate{ID: id, Plan: plan}, nil) {
		return nil
	}
	return c.w.madeAccount(id, plan)
}

func (c *clients) makeKey(ctx context.Context, a *account) bool {
	var k admin.Key
	if !c.write(ctx, "/v1/keys", admin.KeyCreate{Account: a.id}, &k) {
		return false
	}
	c.w.madeKey(a, k)
	return true
}

func (c *clients) revoke(ctx context.Context, k *key) {
	c.w.locked(func() { k.revoking = true })
	if c.write(ctx, "/v1/keys/"+k.id+"/revoke", struct{}{}, nil) {
		c.w.locked(func() { k.revoked = true; c.w.acked["revocations"]++ })
	}
}

// credit makes a new credit.
func (c *clients) credit(ctx context.Context, a *account, units int64) {
	made := &credit{id: c.name("credit"), units: units}
	c.w.locked(func() { a.credits = append(a.credits, made) })
	c.repeat(ctx, a, made)
}

// repeat sends a credit, for the first time or not.
func (c *clients) repeat(ctx context.Context, a *account, made *credit) bool {
	change := admin.QuotaChange{QuotaHolder: admin.QuotaHolder{Account: a.id}, Limit: "credits", Units: made.units, ID: made.id}
	acked := c.write(ctx, "/v1/quota/credit", change, nil)
	c.w.locked(func() {
		if acked && !made.acked {
			c.w.acked["credits"]++
			made.acked = true
		}
	})
	return acked
}

// each calls f again and again, pausing for up to pause, until ctx ends.
func (c *clients) each(ctx context.Context, seed uint64, pause time.Duration, f func(rng *rand.Rand)) {
	rng := rand.New(rand.NewPCG(seed, 1))
	c.wg.Go(func() {
		for ctx.Err() == nil {
			f(rng)
			if pause > 0 {
				select {
				case <-ctx.Done():
				case <-time.After(time.Duration(rng.Int64N(int64(pause)))):
				}
			}
		}
	})
}

// load starts clients of every kind, which end with ctx. Wait for wg then.
func (c *clients) load(ctx context.Context, seed uint64) {
	for i := range uint64(4) {
		c.each(ctx, seed+i, 0, func(rng *rand.Rand) {
			k, revoked := c.w.pick(rng)
			c.check(ctx, k, revoked)
		})
	}
	c.each(ctx, seed+10, 150*time.Millisecond, func(rng *rand.Rand) {
		a := c.w.pickAccount(rng, "")
		if rng.IntN(4) == 0 {
			a = c.makeAccount(ctx, a.plan)
		}
		if a != nil {
			c.makeKey(ctx, a)
		}
	})
	c.each(ctx, seed+11, 400*time.Millisecond, func(rng *rand.Rand) {
		if k, revoked := c.w.pick(rng); !revoked {
			c.revoke(ctx, k)
		}
	})
	c.each(ctx, seed+12, 20*time.Millisecond, func(rng *rand.Rand) {
		c.credit(ctx, c.w.pickAccount(rng, "credits"), 1+rng.Int64N(40))
	})
}
