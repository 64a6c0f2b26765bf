package quotatest

import (
	"context"
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/memory"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/storetest"
)

var randomTests = suite{
	{"random verbs answer as the oracle does", random},
}

// random sends the same verbs to the ledger and to the one in memory and compares every answer.
func random(f *fixture) {
	oracle := memory.NewLedger(f.clock.Now)
	round := 0
	rapid.Check(f.T, func(t *rapid.T) {
		round++ // every round has buckets and ids of its own
		m := &machine{
			ctx: f.Ctx(), clock: f.clock, ledgers: [2]quota.Ledger{f.ledger, oracle}, round: round,
			seqs: make(map[string]uint64),
		}
		t.Repeat(map[string]func(*rapid.T){
			"lease": m.lease, "renew": m.renew, "release": m.release, "settle": m.settle, "credit": m.credit, "reset": m.reset,
			"wait": func(t *rapid.T) {
				f.clock.Advance(time.Duration(rapid.SampledFrom([]int{1, 20, 61, 600, 3600, 86_400}).Draw(t, "seconds")) * time.Second)
			},
			"": m.compareBalances,
		})
		if err := oracle.Check(m.ctx); err != nil {
			t.Fatal(err)
		}
	})
}

// machine is one round of random verbs.
type machine struct {
	ctx     context.Context
	clock   *Clock
	ledgers [2]quota.Ledger // the one under test, and the oracle
	round   int
	seqs    map[string]uint64
	held    []quota.Period // that were answered
}

func (m *machine) limits() []authz.Limit {
	return []authz.Limit{
		{Name: "hour", Units: 20, Window: authz.WindowHour, Per: authz.PerKey},
		{Name: "prepaid", Units: 5, Window: authz.WindowNone, Per: authz.PerAccount},
		{Name: "refunded", Units: 5, Window: authz.WindowNone, Per: authz.PerAccount, RefundOnCrash: true},
	}
}

func (m *machine) bucket(l authz.Limit) quota.Bucket {
	holder := fmt.Sprint("round-", m.round)
	return quota.BucketOf(&l, authz.Holder{Key: holder, Account: holder})
}

func (m *machine) drawLimit(t *rapid.T) authz.Limit {
	return rapid.SampledFrom(m.limits()).Draw(t, "limit")
}

// drawPeriod is mostly the running period, and sometimes another that was answered.
func (m *machine) drawPeriod(t *rapid.T, l authz.Limit) quota.Period {
	if len(m.held) > 0 && rapid.IntRange(0, 3).Draw(t, "late") == 0 {
		return rapid.SampledFrom(m.held).Draw(t, "period")
	}
	return quota.PeriodAt(&l, m.clock.Now())
}

// drawSeq is mostly the next of the node, and sometimes a repetition or an older one.
func (m *machine) drawSeq(t *rapid.T, node string, l authz.Limit) uint64 {
	key := node + "/" + string(l.Per)
	if back := rapid.IntRange(0, 9).Draw(t, "back"); back >= 8 && m.seqs[key] > 1 {
		return m.seqs[key] - uint64(back-8)
	}
	m.seqs[key]++
	return m.seqs[key]
}

func drawNode(t *rapid.T) string { return rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "node") }

// drawUnits draws valid units: the contract does not say which of two faults is reported.
func drawUnits(t *rapid.T, what string) int64 { return rapid.Int64Range(0, 12).Draw(t, what) }

func (m *machine) drawID(t *rapid.T) string {
	return fmt.Sprintf("%d-%d", m.round, rapid.IntRange(0, 20).Draw(t, "id"))
}

// both applies a verb to both ledgers and compares the answers.
func (m *machine) both(t *rapid.T, verb func(quota.Ledger) (any, error)) {
	got, err := verb(m.ledgers[0])
	want, wantErr := verb(m.ledgers[1])
	if (err == nil) != (wantErr == nil) || err != nil && authz.KindOf(err) != authz.KindOf(wantErr) {
		t.Fatalf("error %v, want %v", err, wantErr)
	}
	if storetest.Text(got) != storetest.Text(want) {
		t.Fatalf("answer\n%s, want\n%s", storetest.Text(got), storetest.Text(want))
	}
}

// drawPart is what a request says about one limit.
func (m *machine) drawPart(t *rapid.T, l authz.Limit) quota.LeasePart {
	return quota.LeasePart{
		Count: m.bucket(l).CountKey(), Limit: l, Held: m.drawPeriod(t, l),
		Spent: drawUnits(t, "spent"), Back: drawUnits(t, "back") * rapid.Int64Range(0, 1).Draw(t, "gives back"), Want: drawUnits(t, "want"),
	}
}

func (m *machine) lease(t *rapid.T) {
	l, node := m.drawLimit(t), drawNode(t)
	r := quota.LeaseRequest{
		Node: quota.NodeID(node), Seq: m.drawSeq(t, node, l), Holder: m.bucket(l).HolderID(), Parts: []quota.LeasePart{m.drawPart(t, l)},
	}
	if other := m.drawLimit(t); other.Per == l.Per && other.Name != l.Name {
		r.Parts = append(r.Parts, m.drawPart(t, other))
	}
	m.both(t, func(ledger quota.Ledger) (any, error) {
		answers, err := ledger.Lease(m.ctx, []quota.LeaseRequest{r})
		if err == nil && answers[0].Err == nil {
			m.held = append(m.held, answers[0].Parts[0].Period)
		}
		return answers, err
	})
}

func (m *machine) renew(t *rapid.T) {
	node, applied := drawNode(t), uint64(rapid.IntRange(0, 5).Draw(t, "applied"))
	m.both(t, func(ledger quota.Ledger) (any, error) {
		return ledger.Renew(m.ctx, quota.NodeID(node), quota.Standing{Applied: applied})
	})
}

func (m *machine) release(t *rapid.T) {
	l := m.drawLimit(t)
	r := quota.ReleaseRequest{ID: m.drawID(t), Bucket: m.bucket(l), Limit: l, Node: quota.NodeID(drawNode(t)), Units: drawUnits(t, "units")}
	m.both(t, func(ledger quota.Ledger) (any, error) { return ledger.Release(m.ctx, r) })
}

func (m *machine) settle(t *rapid.T) {
	l := m.drawLimit(t)
	r := quota.SettleRequest{
		ID: m.drawID(t), Node: quota.NodeID(drawNode(t)), Bucket: m.bucket(l), Limit: l, Period: m.drawPeriod(t, l),
		Estimate: drawUnits(t, "estimate"), Actual: drawUnits(t, "actual"),
	}
	m.both(t, func(ledger quota.Ledger) (any, error) { return ledger.Settle(m.ctx, r) })
}

func (m *machine) credit(t *rapid.T) {
	l := m.drawLimit(t)
	r := quota.CreditRequest{ID: m.drawID(t), Bucket: m.bucket(l), Limit: l, Units: drawUnits(t, "units") + 1}
	m.both(t, func(ledger quota.Ledger) (any, error) { return ledger.Credit(m.ctx, r) })
}

func (m *machine) reset(t *rapid.T) {
	l := m.drawLimit(t)
	r := quota.ResetRequest{ID: m.drawID(t), Bucket: m.bucket(l), Limit: l}
	m.both(t, func(ledger quota.Ledger) (any, error) { return ledger.Reset(m.ctx, r) })
}

func (m *machine) compareBalances(t *rapid.T) {
	for _, l := range m.limits() {
		m.both(t, func(ledger quota.Ledger) (any, error) {
			b, err := ledger.Balance(m.ctx, m.bucket(l), l)
			if err == nil {
				err = Check(b)
			}
			return b, err
		})
	}
}
