package quota_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

func noon() time.Time { return time.Date(2024, 5, 15, 12, 0, 0, 0, time.UTC) }

// at is an instant at which every node is alive.
func at(now time.Time) quota.Instant {
	return quota.Instant{Time: now, Alive: func(quota.NodeID) bool { return true }}
}

// reread is the record as a store keeps it.
func reread(t *rapid.T, r *quota.Record) *quota.Record {
	text, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := quota.DecodeRecord(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func prepaidLimit(units int64) authz.Limit {
	return authz.Limit{Name: "credits", Units: units, Window: authz.WindowNone}
}

// TestBook_NeverOverGrants has honest nodes use a book, with crashes, lost answers and refunds, and counts by itself
// what they were really able to use.
func TestBook_NeverOverGrants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const nodes = 3
		var (
			record   quota.Record
			book     = record.Book("c")
			now      = noon()
			alive    = make(map[quota.NodeID]time.Time) // until when
			l        = prepaidLimit(rapid.Int64Range(0, 30).Draw(t, "units"))
			credited int64
			used     int64 // by requests that were served, less refunds
			held     [nodes]int64
			unsaid   [nodes]int64 // used and not reported
			seqs     [nodes]uint64
			runs     [nodes]int  // a process that starts again is another node
			charged  = []int64{} // by requests that can still be settled
		)
		node := func() int { return rapid.IntRange(0, nodes-1).Draw(t, "node") }
		id := func(n int) quota.NodeID { return quota.NodeID(fmt.Sprint(n, ".", runs[n])) }
		at := func() quota.Instant {
			return quota.Instant{Time: now, Alive: func(n quota.NodeID) bool { return alive[n].After(now) }}
		}
		send := func(t *rapid.T, n int, p quota.LeasePart) (lease quota.Lease) {
			seqs[n]++
			p.Count, p.Limit, p.Spent = "c", l, unsaid[n]
			alive[id(n)] = now.Add(quota.SessionTerm)
			r := quota.LeaseRequest{Node: id(n), Seq: seqs[n], Parts: []quota.LeasePart{p}}
			for range rapid.IntRange(1, 3).Draw(t, "times") { // a request whose answer is lost is repeated
				a := record.Lease(&r, at())
				if a.Err != nil {
					t.Fatal(a.Err)
				}
				lease = a.Parts[0]
				record = *reread(t, &record)
				book = record.Book("c")
			}
			return lease
		}
		t.Repeat(map[string]func(*rapid.T){
			"lease": func(t *rapid.T) {
				n := node()
				lease := send(t, n, quota.LeasePart{Want: rapid.Int64Range(0, 9).Draw(t, "want")})
				held[n], unsaid[n] = lease.Held, 0
			},
			"use": func(t *rapid.T) {
				n := node()
				units := rapid.Int64Range(0, held[n]).Draw(t, "units")
				held[n], unsaid[n], used = held[n]-units, unsaid[n]+units, used+units
				charged = append(charged, units)
			},
			"return": func(t *rapid.T) {
				n := node()
				send(t, n, quota.LeasePart{Back: held[n]})
				held[n], unsaid[n] = 0, 0
			},
			"crash": func(*rapid.T) {
				n := node()
				held[n], unsaid[n] = 0, 0
				runs[n]++
			},
			"settle": func(t *rapid.T) {
				if len(charged) == 0 {
					return
				}
				estimate := charged[0]
				charged = charged[1:]
				s, err := book.Settle(quota.SettleRequest{Limit: l, Estimate: estimate, Actual: rapid.Int64Range(0, 12).Draw(t, "actual")}, at())
				if err != nil {
					t.Fatal(err)
				}
				used += s.Charged - s.Refunded
			},
			"credit": func(t *rapid.T) {
				units := rapid.Int64Range(1, 9).Draw(t, "units")
				if err := book.Credit(quota.CreditRequest{Limit: l, Units: units}, now); err != nil {
					t.Fatal(err)
				}
				credited += units
			},
			"wait": func(*rapid.T) { now = now.Add(quota.SessionTerm / 2) },
			"": func(t *rapid.T) {
				if err := record.Check(); err != nil {
					t.Fatal(err)
				}
				able := used
				for n := range nodes {
					able += held[n]
				}
				free := book.Balance(quota.Bucket{}, l, at()).Free
				if able+free > l.Units+credited {
					t.Fatalf("%d were used or can be, and %d are free, of %d: %+v", able, free, l.Units+credited, *book.Prepaid)
				}
			},
		})
	})
}

// TestBook_RefusalChangesNothing applies verbs that are refused to a book in use.
func TestBook_RefusalChangesNothing(t *testing.T) {
	l := authz.Limit{Name: "requests", Units: 10, Window: authz.WindowHour}
	held := quota.PeriodAt(&l, noon())
	var record quota.Record
	book := record.Book("c")
	lease := func(seq uint64, p quota.LeasePart) error {
		if p.Count = "c"; p.Limit.Name == "" {
			p.Limit = l
		}
		err := record.Lease(&quota.LeaseRequest{Node: "a", Seq: seq, Parts: []quota.LeasePart{p}}, at(noon())).Err
		return err
	}
	if err := lease(5, quota.LeasePart{Want: 4}); err != nil {
		t.Fatal(err)
	}
	book = record.Book("c")
	noWindow, tooMuch, prepaid := l, l, prepaidLimit(1)
	noWindow.Window, tooMuch.Units = "", quota.MaxUnits+1
	before := marshal(t, record)
	for name, verb := range map[string]func() error{
		"lease of less than nothing": func() error { return lease(6, quota.LeasePart{Want: -1}) },
		"lease that is late":         func() error { return lease(4, quota.LeasePart{Held: held, Spent: 1, Want: 1}) },
		"lease without a window":     func() error { return lease(6, quota.LeasePart{Limit: noWindow, Want: 1}) },
		"lease of too large a limit": func() error { return lease(6, quota.LeasePart{Limit: tooMuch, Want: 1}) },
		"return of less":             func() error { return lease(6, quota.LeasePart{Held: held, Back: -1}) },
		"settlement of less": func() error {
			_, err := book.Settle(quota.SettleRequest{Limit: l, Period: held, Actual: -1}, at(noon()))
			return err
		},
		"settlement, no window": func() error {
			_, err := book.Settle(quota.SettleRequest{Limit: noWindow, Period: held}, at(noon()))
			return err
		},
		"credit of nothing":       func() error { return book.Credit(quota.CreditRequest{Limit: l}, noon()) },
		"credit without a window": func() error { return book.Credit(quota.CreditRequest{Limit: noWindow, Units: 1}, noon()) },
		"reset of prepaid":        func() error { return book.Reset(quota.ResetRequest{Limit: prepaid}, at(noon())) },
		"reset without a window":  func() error { return book.Reset(quota.ResetRequest{Limit: noWindow}, at(noon())) },
	} {
		if err := verb(); err == nil {
			t.Errorf("%s is not refused", name)
		}
		if after := marshal(t, record); after != before {
			t.Fatalf("%s: the book is\n%s, was\n%s", name, after, before)
		}
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestBook_VeryLargeLimits leases and returns the largest limit until the counts would overflow.
func TestBook_VeryLargeLimits(t *testing.T) {
	var record quota.Record
	l := prepaidLimit(quota.MaxUnits)
	for seq := uint64(1); seq < 10_000; seq += 2 {
		lease := func(seq uint64, p quota.LeasePart) quota.Lease {
			p.Count, p.Limit = "c", l
			got := record.Lease(&quota.LeaseRequest{Node: "a", Seq: seq, Parts: []quota.LeasePart{p}}, at(noon()))
			if got.Err != nil {
				t.Fatal(got.Err)
			}
			return got.Parts[0]
		}
		if got := lease(seq, quota.LeasePart{Spent: 1, Want: quota.MaxUnits}); got.Granted != quota.MaxUnits {
			t.Fatalf("lease %d: %+v", seq, got)
		}
		lease(seq+1, quota.LeasePart{Back: quota.MaxUnits})
		book := record.Book("c")
		if _, err := book.Settle(quota.SettleRequest{Limit: l, Actual: quota.MaxUnits}, at(noon())); err != nil {
			t.Fatal(err)
		}
		if _, err := book.Settle(quota.SettleRequest{Limit: l, Estimate: quota.MaxUnits}, at(noon())); err != nil {
			t.Fatal(err)
		}
		if err := book.Check(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBook_RulesOfAZoneChange moves the days of a zone by an hour, there and back. The day that runs is cut differently, and what was
// used of it stays counted; the next day begins when the rules say so.
func TestBook_RulesOfAZoneChange(t *testing.T) {
	var (
		r   quota.Record
		seq uint64
		l   = authz.Limit{Name: "daily", Units: 10, Window: authz.WindowDay}
	)
	lease := func(hours int, now time.Time, want int64) quota.Lease {
		t.Helper()
		seq++
		l.Zone = time.FixedZone("Here", hours*3600)
		a := r.Lease(&quota.LeaseRequest{Node: "a", Seq: seq, Parts: []quota.LeasePart{{Count: "c", Limit: l, Held: quota.PeriodAt(&l, now), Want: want}}}, at(now))
		if a.Err != nil {
			t.Fatal(a.Err)
		}
		return a.Parts[0]
	}
	day := time.Date(2024, 5, 15, 0, 0, 0, 0, time.UTC)
	lease(2, day, 8)
	if got := lease(1, day, 1); got.Granted != 1 || got.Held != 9 || !got.Period.Start.Equal(day.Add(-time.Hour)) {
		t.Errorf("with other rules: %+v", got)
	}
	if got := lease(2, day, 5); got.Granted != 1 || got.Held != 10 || !got.Period.Start.Equal(day.Add(-2*time.Hour)) {
		t.Errorf("with the rules as they were: %+v", got)
	}
	if got := lease(2, day.Add(22*time.Hour), 3); got.Granted != 3 || got.Held != 3 {
		t.Errorf("the next day: %+v", got)
	}
	if err := r.Check(); err != nil {
		t.Error(err)
	}
}

// TestBook_ForgetsNodes checks that a book does not grow with every process that ever leased from it.
func TestBook_ForgetsNodes(t *testing.T) {
	var record quota.Record
	l := authz.Limit{Name: "requests", Units: 1000, Window: authz.WindowHour}
	for i := range 500 {
		node, now := quota.NodeID(fmt.Sprint(i)), noon().Add(time.Duration(i)*10*time.Minute)
		r := quota.LeaseRequest{Node: node, Seq: 1, Parts: []quota.LeasePart{{Count: "c", Limit: l, Want: 1}}}
		if a := record.Lease(&r, quota.Instant{Time: now, Alive: func(n quota.NodeID) bool { return n == node }}); a.Err != nil {
			t.Fatal(a.Err)
		}
	}
	if len(record.Seen) > 20 {
		t.Fatalf("%d nodes are remembered", len(record.Seen))
	}
}

func TestBook_CheckFindsFaults(t *testing.T) {
	held := map[quota.NodeID]quota.Holding{"a": {Units: 3}}
	for name, page := range map[string]quota.Page{
		"sums":                {Granted: 5, Spent: 1, Held: held, Ceiling: 9},
		"less held than none": {Granted: 2, Spent: 3, Ceiling: 9, Held: map[quota.NodeID]quota.Holding{"a": {Units: -1}}},
		"less than nothing":   {Granted: -1, Spent: -1},
		"returned too much":   {Granted: 1, Spent: -1, Returned: 2},
		"forgiven too much":   {Granted: 3, Held: held, Forgiven: 4, Ceiling: 3},
		"granted too much":    {Granted: 8, Spent: 4, Returned: 1, Held: held, Forgiven: 1, Ceiling: 5},
	} {
		for i, book := range []quota.Book{{Current: &page}, {Previous: &page}, {Prepaid: &page}} {
			if book.Check() == nil && name != "less than nothing" {
				t.Errorf("%s, page %d: nothing was found", name, i)
			}
		}
	}
	if err := (&quota.Book{Current: &quota.Page{Granted: 5, Spent: 1, Returned: 1, Held: held, Forgiven: 1, Ceiling: 3}}).Check(); err != nil {
		t.Error(err)
	}
}

// FuzzBucketKey looks for two buckets of one key.
func FuzzBucketKey(f *testing.F) {
	f.Add("key", "a", "\x01b\x00\x00\x00\x00", "key", "a", "b")
	f.Add("key", "a", "b", "key", "ab", "")
	f.Add("key", "a_b", "c", "key", "a", "b_c")
	f.Add("", "\x03key", "", "key", "", "")
	f.Add("key", "\x00", "", "key", "", "\x00")
	f.Add("key\x01", "a", "b", "key", "\x01a", "b")
	f.Fuzz(func(t *testing.T, per1, holder1, limit1, per2, holder2, limit2 string) {
		a := quota.Bucket{Per: authz.Per(per1), Holder: holder1, Limit: limit1}
		b := quota.Bucket{Per: authz.Per(per2), Holder: holder2, Limit: limit2}
		if b.Unit = limit1; a.Key() == b.Key() {
			t.Fatalf("%+v has the key of %+v", a, b)
		}
		if b.Unit = ""; (a == b) != (a.Key() == b.Key()) {
			t.Fatalf("%+v has key %q, %+v has key %q", a, a.Key(), b, b.Key())
		}
	})
}

func TestBucketOf_Holder(t *testing.T) {
	h := authz.Holder{Key: "key_1", Account: "acme"}
	for _, c := range []struct {
		per  authz.Per
		want string
	}{{authz.PerKey, "key_1"}, {authz.PerAccount, "acme"}, {"", "key_1"}} {
		l := authz.Limit{Name: "n", Per: c.per}
		if got := quota.BucketOf(&l, h); got != (quota.Bucket{Per: c.per, Holder: c.want, Limit: "n"}) {
			t.Errorf("per %q: %+v", c.per, got)
		}
	}
}
