package check_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/check"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/revocation"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
	"github.com/tollkeeper-authz/tollkeeper/policies"
)

// forgetful records nothing.
type forgetful struct{}

func (forgetful) Record(*check.Entry) {}

// BenchmarkCheck is the whole request path but for the wire: a good key on the shipped policies, every time on a stream of
// its own.
func BenchmarkCheck(b *testing.B) {
	for _, memo := range []int{20_000, 0} {
		b.Run(fmt.Sprintf("memo=%d", memo), func(b *testing.B) {
			keys := memory.NewKeys()
			now := time.Now()
			if _, err := keys.CreateAccount(b.Context(), apikey.Account{ID: "acme", Plan: "free", Status: authz.AccountActive, CreatedAt: now, Version: 1}); err != nil {
				b.Fatal(err)
			}
			text, _ := apikey.NewText("live")
			if _, err := keys.CreateKey(b.Context(), apikey.Key{ID: "key_1", Lineage: "key_1", Account: "acme", Environment: "live", CreatedAt: now, Version: 1, Digest: apikey.Hasher{}.Text(text)}); err != nil {
				b.Fatal(err)
			}
			revoked := revocation.NewSet(memory.NewRevocations(), time.Hour, time.Now)
			_ = revoked.Sync(b.Context())
			p, err := policy.Load(b.Context(), policy.FS(policies.Files), policy.Options{Memo: memo})
			if err != nil {
				b.Fatal(err)
			}
			c := check.New(apikey.NewIdentifier(keys, apikey.Hasher{}), revoked, quota.NewDispenser(memory.NewLedger(time.Now), "n", time.Now), forgetful{},
				check.Options{Credentials: check.Sources{Headers: []string{"x-api-key"}, Bearer: true}})
			limits := []authz.Limit{{Name: "rate", Units: 1 << 50, Unit: "requests", Window: authz.WindowMonth, Per: authz.PerKey}, {Name: "daily", Units: 1 << 50, Unit: "requests", Window: authz.WindowMonth, Per: authz.PerAccount}}
			c.Use(&check.Rules{Policy: p, Plans: map[string][]authz.Limit{"free": limits}})
			r := request(":method", "GET", ":path", "/v1/x", ":authority", "api", "accept", "*/*", "user-agent", "curl/8", "x-request-id", "0b9f", "x-forwarded-for", "10.0.0.1", "x-forwarded-proto", "http", "x-api-key", text)
			r.Source = &authz.Peer{Address: &authz.Address{Socket: &authz.SocketAddress{Address: "10.0.0.1", Port: 4000}}}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				r.HTTP.ID, r.Time = "1234567890123456789", time.Unix(1700000000, int64(i))
				if d := c.Check(b.Context(), r); !d.Allowed() {
					b.Fatal(d.DeniedFor())
				}
			}
		})
	}
}
